"""``ofa-table``: what a table holds, tables from and to published files, and what a table says of a network."""

import click

from ofa_profiler.commands.cli import run
from ofa_profiler.commands.display import example
from ofa_profiler.commands.table.exchange import export, import_
from ofa_profiler.commands.table.merge import merge
from ofa_profiler.commands.table.predict import predict
from ofa_profiler.commands.table.show import show


@click.group(epilog=example("ofa-table show local-onnxruntime-fp32-t1-b1.lut"))
def table() -> None:
    """Show, import, export, merge latency tables, and predict networks with them.

    Latencies are milliseconds for one inference of the whole batch.
    """


for command in (show, import_, export, merge, predict):
    table.add_command(command)

main = run(table)
