"""Targets: named devices and how to reach them, from the shipped file and the user's files."""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import platformdirs

from ofa_agent import conditions
from ofa_agent.commands.template import PREFIX
from ofa_agent.operators import PRECISIONS
from ofa_profiler.targets import commands as command_files
from ofa_profiler.targets.commands import SECTION, Command
from ofa_tables.errors import DeviceError, FileError, UnknownName, UsageError
from ofa_tables.reading import read_text

SHIPPED = "ofa-profile"
PHONE_RUNTIMES = ("benchmark_model", "tflite", "onnxruntime")
FILE_NAME = "targets.toml"
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Target:
    """A named device.

    ``models`` are patterns for the model names that phones report. ``--set key=value`` gives ``conditions`` of the
    device, which are set while it is measured, and ``settings`` of the connection. ``suggest`` are conditions that make
    latencies stable. ``engine`` are the parameters of a simulated target. ``origins`` is the file that each value comes
    from. ``commands`` are the templates of the runtimes that are commands, as JSON by runtime.
    """

    name: str
    connection: str
    description: str = ""
    address: str = ""
    models: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ("onnxruntime",)
    precision: str = "fp32"
    notes: tuple[str, ...] = ()
    suggest: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_stem(self) -> str:
        return "".join(character if character.isalnum() or character in "-_." else "-" for character in self.name)


def files() -> list[Path]:
    """Return the paths of the user's target files; later files override earlier ones."""
    return [platformdirs.user_config_path("ofa-profile") / FILE_NAME, Path(FILE_NAME)]


def all_targets() -> dict[str, Target]:
    """Return the shipped targets, overridden and extended by the user's files. Raises FileError."""
    entries: dict[str, dict[str, Any]] = {}
    origins: dict[str, dict[str, str]] = {}
    ours = resources.files("ofa_profiler.targets").joinpath(FILE_NAME).read_text()
    for origin, text in [(SHIPPED, ours), *_texts()]:
        for name, values in _parsed(text, origin).items():
            if name == SECTION:
                continue
            like = values.pop("like", name)
            if like not in entries and like != name:
                raise FileError(
                    f"{origin}: {name} inherits from {_short(repr(like))}, which is not a target; "
                    f"{_nearest(like, entries)}"
                )
            inherited = entries.get(like, {})
            if "engine" in values:
                values["engine"] = {**inherited.get("engine", {}), **values["engine"]}
            entries[name] = {**inherited, **values}
            origins[name] = {**origins.get(like, {}), **dict.fromkeys(values, origin)}
            if "connection" not in entries[name]:
                raise FileError(f"{origin}: {name} has no connection; add connection = 'ssh', or like = 'jetson-tx2'")
    return {name: _target(name, entries[name], origins[name]) for name in entries}


def find_target(name: str, settings: Mapping[str, str] | None = None, runtime: str | None = None) -> Target:
    """Return a target by its name or address.

    Addresses are ``user@host[:port]`` and ``ssh://[user@]host[:port]`` for a board with SSH, ``adb:SERIAL`` for a
    phone, and ``tcp:HOST:PORT`` for a running agent. ``runtime`` decides whether the agent for a phone runs on the
    phone or on the host. Raises UnknownName, FileError.
    """
    if name.startswith("tcp:"):
        target = Target(name, "tcp", "a running agent", name.removeprefix("tcp:"))
    elif name.startswith("adb:"):
        target = Target(name, "adb", "a phone", name.removeprefix("adb:"), runtimes=PHONE_RUNTIMES)
    elif "@" in name or name.startswith("ssh://"):
        target = Target(name, "ssh", "a board with SSH", name, runtimes=("onnxruntime", "torch"))
    else:
        targets = all_targets()
        if name not in targets:
            raise UnknownName(
                "target",
                name,
                targets,
                "for a host of the SSH configuration use ssh://HOST or user@HOST, else a name of "
                "ofa-targets list, adb:SERIAL, or tcp:HOST:PORT",
            )
        target = targets[name]
    given = {**target.settings, **(settings or {})}
    knobs = conditions.settings()
    of_device = {key: value for key, value in given.items() if key in knobs}
    of_connection = {key: value for key, value in given.items() if key not in knobs}
    runtimes = target.runtimes
    if runtime and target.connection == "adb":
        runtimes = (runtime,)
    elif runtime and runtime.startswith(PREFIX):  # which needs no package on the device
        runtimes = (runtime, *runtimes)
    commands = command_files.texts_of(runtimes, all_commands())
    return replace(target, settings=of_connection, conditions=of_device, runtimes=runtimes, commands=commands)


def all_commands() -> dict[str, Command]:
    """Return the shipped command templates, overridden and extended by the user's files. Raises FileError."""
    sections = [(origin, _parsed(text, origin).get(SECTION, {})) for origin, text in _texts()]
    ours = tomllib.loads(command_files.shipped())[SECTION]
    return command_files.merged([(SHIPPED, ours), *sections])


def choose_runtime(target: Target, wanted: str | None, description: Mapping[str, Mapping[str, str]]) -> str:
    """Return the wanted runtime, or the first runtime of the target that loads on the device.

    Raises DeviceError if it does not load, UnknownName.
    """
    there, missing = description["runtimes"], description["missing_runtimes"]
    if wanted is None:
        chosen = next((runtime for runtime in target.runtimes if runtime in there), None)
        if chosen is None:
            reasons = "; ".join(f"{name}: {missing[name]}" for name in ("worker", *target.runtimes) if name in missing)
            raise DeviceError(
                f"{target.name} has none of its runtimes ({', '.join(target.runtimes)}): {reasons}; "
                f"{_installing(target.runtimes)}"
            )
        return chosen
    if wanted in there:
        return wanted
    if wanted in missing:
        raise DeviceError(
            f"runtime {wanted} does not load on {target.name}: {missing[wanted]}; fix its installation on the device"
        )
    commands = [PREFIX + name for name in all_commands()]
    named = [PREFIX + wanted] if PREFIX + wanted in commands else [*there, *missing, *commands]
    raise UnknownName("runtime", wanted, named)


def _installing(runtimes: Sequence[str]) -> str:
    """How to get one of these runtimes."""
    packages = [runtime.partition("-")[0] for runtime in runtimes if not runtime.startswith(PREFIX)]
    if not packages:
        return "install the tool on the device, or write its full path into the template"
    return f"install one on the device, such as python3 -m pip install {packages[0]}"


def parse_settings(pairs: tuple[str, ...]) -> dict[str, str]:
    """Parse ``key=value`` pairs from the command line. Raises UsageError."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes key=value, not {pair!r}")
        settings[key] = value
    return settings


def _texts() -> list[tuple[str, str]]:
    there = [path for path in files() if os.path.lexists(path)]
    return [(str(path), read_text(path, MAX_BYTES, "a file of targets", "it must be TOML")) for path in there]


def _strings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _pairs(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


_TEXT: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, str) and bool(value), "a string")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "like": _TEXT,
    "connection": _TEXT,
    "description": _TEXT,
    "address": _TEXT,
    "precision": (lambda value: isinstance(value, str) and value in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    "models": (_strings, "a list of patterns, such as ['SM-G935*']"),
    "runtimes": (_strings, "a list of names, such as ['onnxruntime']"),
    "notes": (_strings, "a list of strings"),
    "suggest": (_pairs, "a table of strings, such as { governor = 'performance' }"),
    "engine": (lambda value: isinstance(value, dict), "a section, such as [my-board.engine]"),
    "set": (_pairs, "a table of strings, such as { governor = 'performance' }"),
}


def _parsed(text: str, origin: str) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise FileError(
            f"{origin} is nested too deeply; a section has strings, lists and one level of tables"
        ) from None
    except ValueError as error:  # also integers with too many digits
        raise FileError(f"{origin} is not valid TOML: {str(error)[:200]}") from None
    for name, values in content.items():
        if name == SECTION and isinstance(values, dict):
            continue  # checked by all_commands
        if not isinstance(values, dict):
            raise FileError(
                f"{origin}: {_short(repr(name))} is not in a section; move it under a target, such as [jetson-tx2]"
            )
        for key, value in values.items():
            if key not in _FIELDS:
                raise FileError(f"{origin}: {name} has an unknown key {_short(repr(key))}; {_nearest(key, _FIELDS)}")
            fits, wanted = _FIELDS[key]
            if not fits(value):
                raise FileError(f"{origin}: {name}: {key} must be {wanted}, not {_short(repr(value))}")
    return content


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "…"


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"known names: {', '.join(known)}"


def _target(name: str, values: Mapping[str, Any], origins: Mapping[str, str]) -> Target:
    plain = {key: value for key, value in values.items() if key != "set"}
    lists = {key: tuple(values[key]) for key in ("models", "runtimes", "notes") if key in values}
    return Target(name, **{**plain, **lists, "settings": values.get("set", {}), "origins": origins})
