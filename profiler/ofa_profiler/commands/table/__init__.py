"""``ofa-table``: shows, checks, converts, and merges latency tables, predicts networks, and checks spaces."""

import click

from ofa_nas.cli import example, run
from ofa_profiler.commands.table.check import check
from ofa_profiler.commands.table.diff import diff
from ofa_profiler.commands.table.exchange import export, import_
from ofa_profiler.commands.table.merge import merge
from ofa_profiler.commands.table.predict import predict
from ofa_profiler.commands.table.show import show
from ofa_profiler.commands.table.space import space


@click.group(epilog=example("ofa-table show local-onnxruntime-fp32-t1-b1.lut"))
def table() -> None:
    """Show, check, compare, import, export, and merge latency tables, and predict networks. Check search spaces.

    A latency is the time of one inference of the whole batch, in ms.
    """


for command in (show, check, diff, import_, export, merge, predict, space):
    table.add_command(command)

main = run(table)
