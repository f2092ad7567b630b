"""``ofa-table``: what a table holds and what is wrong with it, published files in and out, networks' latencies."""

import click

from ofa_nas.cli import example, run
from ofa_profiler.commands.table.check import check
from ofa_profiler.commands.table.diff import diff
from ofa_profiler.commands.table.exchange import export, import_
from ofa_profiler.commands.table.merge import merge
from ofa_profiler.commands.table.predict import predict
from ofa_profiler.commands.table.show import show


@click.group(epilog=example("ofa-table show local-onnxruntime-fp32-t1-b1.lut"))
def table() -> None:
    """Show, check, compare, import, export, merge latency tables, and predict networks with them.

    Latencies are milliseconds for one inference of the whole batch.
    """


for command in (show, check, diff, import_, export, merge, predict):
    table.add_command(command)

main = run(table)
