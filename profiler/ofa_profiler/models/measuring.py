"""Measure model files on one device, and keep the results in a table of models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ofa_profiler.campaign.campaign import Campaign, Outcome, Progress
from ofa_profiler.campaign.effort import NETWORK_BUDGET
from ofa_profiler.campaign.jobs import FileJob
from ofa_profiler.connections import Connection
from ofa_profiler.models.model_file import ModelFile
from ofa_profiler.targets.target import Target
from ofa_tables.identity import Identity
from ofa_tables.table import REFERENCE, LatencyTable

FILES = "files"  # stored in place of the name of a space


def models_path(device: Target, made: Identity) -> Path:
    """Return the table that keeps all model files measured with these settings."""
    runtime = made.runtime.replace(":", "-")
    return Path(f"{device.file_stem}-{runtime}-{made.settings.precision}-t{made.settings.threads}-models.lut")


def file_job(file: ModelFile) -> FileJob:
    return FileJob(file.key, file.model, file.format, file.inputs)


def add_file(table: LatencyTable, file: ModelFile, accuracy: float | None = None) -> None:
    """Add a model file to the networks of a table, with the accuracy that the user states. Its facts are replaced."""
    table.store.add_network(file.key, FILES, {"name": file.name}, REFERENCE)
    known = table.store.get(f"file/{file.key}") or {}
    facts: dict[str, Any] = {
        "name": file.name,
        "macs": file.macs,
        "parameters": file.parameters,
        "resolution_px": file.resolution_px,
        "accuracy": known.get("accuracy") if accuracy is None else accuracy,
    }
    if facts != known:
        table.store.put(f"file/{file.key}", facts)


def measure_files(
    table: LatencyTable, files: Sequence[ModelFile], rounds: int, connection: Connection, progress: Progress
) -> Outcome:
    """Measure what the table lacks of these files in ``rounds`` rounds."""
    for file in files:
        add_file(table, file)
    jobs = [file_job(file) for file in files]
    names = ", ".join(file.name for file in files)
    campaign = Campaign(table, [jobs] * rounds, NETWORK_BUDGET, progress, f"ofa-profile --model {names}"[:100])
    return campaign.run(connection)
