"""Measure model files on one device, and keep the results in a table of models."""

from collections.abc import Sequence
from pathlib import Path

from ofa_agent.commands.template import parse_text
from ofa_agent.protocol import messages as wire
from ofa_nas.references import store_file
from ofa_profiler.campaign.campaign import Campaign, Outcome, Progress
from ofa_profiler.campaign.effort import NETWORK_BUDGET
from ofa_profiler.campaign.jobs import FileJob
from ofa_profiler.connections import Connection
from ofa_profiler.lowering import Model
from ofa_profiler.lowering.conversion import converted
from ofa_profiler.models.model_file import ModelFile
from ofa_profiler.targets.target import Target
from ofa_tables.identity import Identity
from ofa_tables.table import LatencyTable


def models_path(device: Target, made: Identity) -> Path:
    """Return the table that keeps all model files measured with these settings."""
    runtime = made.runtime.replace(":", "-")
    return Path(f"{device.file_stem}-{runtime}-{made.settings.precision}-t{made.settings.threads}-models.lut")


def file_job(table: LatencyTable, file: ModelFile, layers: bool) -> FileJob:
    """Return the job of a model file; a command template may convert the file on this machine first."""
    model, template = file.model, parse_text(table.command) if table.command else None
    if template and template.convert and template.convert_on == "host":
        batch = file.inputs[0].shape[0] if file.inputs[0].shape else 1
        chunks = converted(template, list(model.chunks), batch, table.identity.settings.precision)
        model = Model(wire.model_id_of(chunks), tuple(chunks))
    return FileJob(file.key, model, file.format, file.inputs, layers)


def add_file(table: LatencyTable, file: ModelFile, accuracy: float | None = None) -> None:
    """Add a model file to the networks of a table, with the accuracy (0 to 1) that the user states."""
    facts = {"macs": file.macs, "parameters": file.parameters, "resolution_px": file.resolution_px}
    store_file(table, file.key, file.name, {**facts, "accuracy": accuracy})


def measure_files(
    table: LatencyTable, files: Sequence[ModelFile], rounds: int, connection: Connection, progress: Progress
) -> Outcome:
    """Measure what the table lacks of these files in ``rounds`` rounds."""
    for file in files:
        add_file(table, file)
    jobs = [file_job(table, file, layers=True) for file in files]
    names = ", ".join(file.name for file in files)
    campaign = Campaign(table, [jobs] * rounds, NETWORK_BUDGET, progress, f"ofa-profile --model {names}"[:100])
    return campaign.run(connection)
