"""Profile model files on targets: one table per target and runtime, one profile per file and target."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_profiler.campaign.campaign import Outcome
from ofa_profiler.campaign.effort import EFFORTS
from ofa_profiler.campaign.progress import ShowProgress
from ofa_profiler.connections import connect
from ofa_profiler.models.formats import find_runtime, read_model
from ofa_profiler.models.measuring import measure_files, models_path
from ofa_profiler.models.model_file import ModelFile, Shape
from ofa_profiler.models.results import ModelProfile, profile_of
from ofa_profiler.models.shapes import require_used
from ofa_profiler.table_file import Say, open_for_writing, record_conditions
from ofa_profiler.targets.table_target import require_conditions
from ofa_profiler.targets.target import Target, choose_runtime
from ofa_tables.errors import DeviceError, FileError, UsageError
from ofa_tables.identity import LAYERS, Identity, Settings
from ofa_tables.store.measurement import SIMULATED


def read_models(paths: Sequence[Path], shapes: Mapping[str, Shape]) -> tuple[list[ModelFile], list[FileError]]:
    """Read model files, and return those that can be profiled and the reasons why others cannot. Raises UsageError."""
    files: list[ModelFile] = []
    errors: list[FileError] = []
    for path in dict.fromkeys(paths):
        try:
            files.append(read_model(path, shapes))
        except FileError as error:
            errors.append(error)
    if not errors:
        require_used(shapes, [each.name for file in files for each in file.inputs])
    return files, errors


def profile_files(
    files: Sequence[ModelFile],
    targets: Sequence[Target],
    settings: Settings,
    *,
    runtime: str | None,
    precision: str | None,
    effort: str,
    fresh: bool,
    say: Say,
    show_progress: ShowProgress,
) -> list[ModelProfile]:
    """Measure every file on every target. If there are several targets, one that fails does not stop the others.

    ``precision`` None is that of each target. Raises UsageError; DeviceError if no target works.
    """
    for target in targets:
        if target.connection == SIMULATED:
            raise UsageError(f"{target.name} is simulated and executes no files; give a device with --target")
    profiles: list[ModelProfile] = []
    failures: list[DeviceError] = []
    for target in targets:
        of_target = replace(settings, precision=precision or target.precision)
        try:
            profiles += _on_target(files, target, of_target, runtime, effort, fresh, say, show_progress)
        except DeviceError as error:
            failures.append(error)
            if len(targets) > 1:
                say(f"{target.name}: {error}; continuing with the other targets")
            profiles += [_failed(file, target, runtime, of_target, str(error)) for file in files]
    if len(failures) == len(targets):
        raise failures[0]
    return profiles


def _on_target(
    files: Sequence[ModelFile],
    target: Target,
    settings: Settings,
    wanted: str | None,
    effort: str,
    fresh: bool,
    say: Say,
    show_progress: ShowProgress,
) -> list[ModelProfile]:
    found: dict[str, ModelProfile] = {}
    with connect(target) as connection:
        connection.say = say
        description = connection.agent.describe()
        by_runtime: dict[str, list[ModelFile]] = {}
        for file in files:
            by_runtime.setdefault(find_runtime(target, wanted, file.format, description), []).append(file)
        for runtime, of_runtime in by_runtime.items():
            identity = _identity(target, runtime, settings, description)
            path = models_path(target, identity)
            with open_for_writing(path, identity, description, fresh, say) as table:
                require_conditions(table, target)
                record_conditions(table, target, Outcome())
                say(f"{path}: {target.name} ({description['chip']}), {runtime} {identity.runtime_version}, {settings}")
                with show_progress("measuring models") as progress:
                    outcome = measure_files(table, of_runtime, EFFORTS[effort].rounds, connection, progress)
                record_conditions(table, target, outcome)
                for file in of_runtime:
                    found[file.key] = profile_of(table, file, outcome.failures.get(file.key, ""))
    return [found[file.key] for file in files]


def _identity(target: Target, runtime: str, settings: Settings, description: Mapping[str, Any]) -> Identity:
    chosen = choose_runtime(target, runtime, description)
    version = description["runtimes"][chosen]
    return Identity(target.name, description["fingerprint"], chosen, version, settings, LAYERS)


def _failed(file: ModelFile, target: Target, runtime: str | None, settings: Settings, reason: str) -> ModelProfile:
    identity = Identity(target.name, "", runtime or "", "", settings)
    inputs = tuple(map(str, file.inputs))
    return ModelProfile(
        file.name, file.key, "", identity, "", inputs, len(file.content), file.macs, file.parameters, failure=reason
    )
