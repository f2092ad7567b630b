"""Command templates: the shipped ones, and those of the user's target files (sections ``[command.NAME]``)."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from ofa_agent.commands.template import PREFIX, InvalidTemplate, Template, parse
from ofa_tables.errors import FileError, UnknownName

SECTION = "command"
FILE_NAME = "commands.toml"


@dataclass(frozen=True)
class Command:
    """A command template as files define it. ``origins`` is the file that each value comes from."""

    template: Template
    values: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)


def shipped() -> str:
    return resources.files("ofa_profiler.targets").joinpath(FILE_NAME).read_text()


def merged(sections: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Command]:
    """Merge the sections ``command`` of several files; later files override earlier ones. Raises FileError."""
    entries: dict[str, dict[str, Any]] = {}
    origins: dict[str, dict[str, str]] = {}
    for origin, section in sections:
        for name, given in section.items():
            if not isinstance(given, dict):
                raise FileError(f"{origin}: {name!r} is not in a section; move it under one, such as [command.{name}]")
            values = dict(given)
            like = values.pop("like", name)
            if like not in entries and like != name:
                near = _nearest(like, entries)
                raise FileError(f"{origin}: command.{name} inherits from {like!r}, which is not a command; {near}")
            entries[name] = {**entries.get(like, {}), **values}
            origins[name] = {**origins.get(like, {}), **dict.fromkeys(values, origin)}
            _parsed(name, entries[name], origin)
    return {name: Command(_parsed(name, entries[name], ""), entries[name], origins[name]) for name in entries}


def texts_of(runtimes: Iterable[str], commands: Mapping[str, Command]) -> dict[str, str]:
    """Return the templates of the runtimes that are commands, as JSON by runtime. Raises UnknownName."""
    found = {}
    for runtime in runtimes:
        if runtime.startswith(PREFIX):
            name = runtime.removeprefix(PREFIX)
            if name not in commands:
                raise UnknownName("command", name, commands, "write a section [command.NAME] into targets.toml")
            found[runtime] = commands[name].template.text
    return found


def _parsed(name: str, values: Mapping[str, Any], origin: str) -> Template:
    try:
        return parse(name, dict(values))
    except InvalidTemplate as error:
        raise FileError(f"{origin}: [command.{name}] {error}") from None


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"known commands: {', '.join(known)}"
