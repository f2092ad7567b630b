"""Targets: named devices and how to reach them."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources

from ofa_agent import conditions
from ofa_tables.errors import DeviceError, UnknownName, UsageError


@dataclass(frozen=True)
class Target:
    """A named device.

    Of what ``--set key=value`` gives, ``conditions`` are the device's, set while it is measured, and ``settings`` the
    Connection's own.
    """

    name: str
    connection: str
    description: str = ""
    address: str = ""
    runtimes: tuple[str, ...] = ("onnxruntime",)
    settings: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_stem(self) -> str:
        return "".join(character if character.isalnum() or character in "-_." else "-" for character in self.name)


def shipped_targets() -> dict[str, Target]:
    content = tomllib.loads(resources.files("ofa_profiler").joinpath("targets.toml").read_text())
    return {name: Target(name, **{**fields, "runtimes": tuple(fields["runtimes"])}) for name, fields in content.items()}


def find_target(name: str, settings: Mapping[str, str] | None = None) -> Target:
    """A shipped target, or ``tcp:HOST:PORT`` for an agent that somebody started. Raises UnknownName."""
    targets = shipped_targets()
    if name.startswith("tcp:"):
        target = Target(name, "tcp", "an agent that serves there", name.removeprefix("tcp:"))
    elif name in targets:
        target = targets[name]
    else:
        raise UnknownName("target", name, [*targets, "tcp:HOST:PORT"])
    knobs = conditions.settings()
    of_device = {key: value for key, value in (settings or {}).items() if key in knobs}
    of_connection = {key: value for key, value in (settings or {}).items() if key not in knobs}
    return replace(target, settings=of_connection, conditions=of_device)


def choose_runtime(target: Target, wanted: str | None, description: Mapping[str, Mapping[str, str]]) -> str:
    """The runtime to measure with: the one asked for, or the target's first preferred one that loads on the device."""
    there, missing = description["runtimes"], description["missing_runtimes"]
    if wanted is None:
        chosen = next((runtime for runtime in target.runtimes if runtime in there), None)
        if chosen is None:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items()) or "it names none"
            raise DeviceError(
                f"{target.name} has none of its runtimes ({', '.join(target.runtimes)}): {reasons}; "
                "install one there with python3 -m pip install"
            )
        return chosen
    if wanted in there:
        return wanted
    if wanted in missing:
        raise DeviceError(
            f"runtime {wanted} does not load on {target.name}: {missing[wanted]}; mend its installation there"
        )
    raise UnknownName("runtime", wanted, [*there, *missing])


def parse_settings(pairs: tuple[str, ...]) -> dict[str, str]:
    """``key=value`` pairs of the command line. Raises UsageError."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes key=value, not {pair!r}")
        settings[key] = value
    return settings
