"""``ofa-targets``: lists targets and the source of their values, and checks that a device is ready."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import click
from rich.markup import escape
from rich.text import Text

from ofa_agent.commands.template import PREFIX
from ofa_agent.measuring.timing import Budget
from ofa_agent.protocol import messages as wire
from ofa_nas.cli import answer, console, example, json_option, print_json, run, say
from ofa_profiler.campaign.jobs import reference_job
from ofa_profiler.commands.display import columns, engine_lines, print_wide
from ofa_profiler.connections import Connection, connect
from ofa_profiler.connections.client import time_once
from ofa_profiler.targets.commands import texts_of
from ofa_profiler.targets.target import (
    Target,
    all_commands,
    all_targets,
    choose_runtime,
    files,
    find_target,
    parse_settings,
)
from ofa_tables.errors import OfaError

COMMAND_WIDTH = 80

set_option = click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Setting of the target's connection."
)


@click.group(name="ofa-targets", epilog=example("ofa-targets check jetson-tx2"))
def targets() -> None:
    """List targets; check, provision, and clean a device."""


@targets.command(name="list", short_help="List all targets.", epilog=example("ofa-targets list"))
@json_option
def list_(as_json: bool) -> None:
    """List all targets, and the files in which you can set addresses and add targets."""
    found = all_targets()
    if as_json:
        print_json({"targets": [_as_json(target) for target in found.values()], "files": [str(f) for f in files()]})
        return
    listing = columns("target", "connection", "address", "description")
    for column in listing.columns[1:]:
        column.justify = "left"
    for target in found.values():
        listing.add_row(target.name, target.connection, target.address, target.description)
    print_wide(listing)
    runtimes = ", ".join(f"{PREFIX}{command}" for command in all_commands())
    answer.print(f"\nCommand templates, for --runtime: {runtimes}", markup=False)
    answer.print("\nuser@host, adb:SERIAL, and tcp:HOST:PORT need no entry. Your own targets are read from:")
    for path in files():
        answer.print(f"  {path.absolute()}{'' if path.exists() else ' (does not exist)'}", markup=False)


@targets.command(short_help="Show the values of a target.", epilog=example("ofa-targets show jetson-tx2"))
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the values of a target and the file that each value comes from.

    ``command:NAME`` shows a command template. Templates that a target uses are shown with it.
    """
    if name.startswith(PREFIX):
        _show_commands(texts_of([name], all_commands()), as_json)
        return
    target = find_target(name)
    if as_json:
        print_json(_as_json(target))
        return
    listing = columns(target.name, "value", "from")
    for column in listing.columns:
        column.justify = "left"
    values = _as_json(target)
    for key, value in values.items():
        if key in ("name", "from", "commands") or (key == "engine" and not value):
            continue
        if key == "engine":
            value = engine_lines(value)
        elif isinstance(value, dict):
            value = ", ".join(f"{setting}={state}" for setting, state in value.items())
        lines = value if key in ("notes", "engine") else [", ".join(value) if isinstance(value, list) else value]
        for line in lines or [""]:
            listing.add_row(
                key,
                line,
                target.origins.get(key, ("the name" if target.address == name else "default") if line else ""),
            )
    print_wide(listing)
    if target.suggest:
        flags = " ".join(f"--set {setting}={state}" for setting, state in target.suggest.items())
        answer.print(f"\nfor stable latencies: ofa-profile --target {name} {flags}", markup=False)
    if target.commands:
        answer.print()
        _show_commands(target.commands, as_json)


def _show_commands(runtimes: Iterable[str], as_json: bool) -> None:
    """Print the templates of these runtimes, and the file that each value comes from."""
    commands = {runtime: all_commands()[runtime.removeprefix(PREFIX)] for runtime in runtimes}
    if as_json:
        print_json({runtime: {**command.values, "from": command.origins} for runtime, command in commands.items()})
        return
    for runtime, command in commands.items():
        listing = columns(runtime, "value", "from")
        for column in listing.columns:
            column.justify = "left"
        for key, value in command.values.items():
            for line in _lines(value):
                listing.add_row(key, Text(line), command.origins.get(key, ""))
        print_wide(listing)


def _lines(value: Any) -> list[str]:
    """Return a value of a template as lines: commands as a shell would take them."""
    if isinstance(value, list):
        return _wrapped(value) if any("{" in item for item in value) else value
    if isinstance(value, dict):
        return [f"{key} = {' '.join(item) if isinstance(item, list) else item}" for key, item in value.items()]
    return [str(value)]


def _wrapped(arguments: list[str]) -> list[str]:
    """Return a command as lines of about 80 characters."""
    lines = [""]
    for argument in arguments:
        word = argument if re.fullmatch(r"[\w@%+=:,./{}-]+", argument) else shlex.quote(argument)
        if len(lines[-1]) + len(word) > COMMAND_WIDTH:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return lines


@targets.command(epilog=example("ofa-targets check jetson-tx2"))
@click.argument("name")
@set_option
@json_option
def check(name: str, pairs: tuple[str, ...], as_json: bool) -> None:
    """Check that a device is ready to be profiled.

    Connects, deploys the agent, describes the device, and times one network. If a step fails, the message says what is
    missing and how to fix it.
    """
    target = find_target(name, parse_settings(pairs))
    facts: dict[str, Any] = {"target": target.name, "ok": False}
    try:
        with connect(target) as connection:
            connection.say = say
            for step, reported in _steps(connection):
                facts[step] = reported
                console.print(f"[green]ok[/] {step}: {escape(str(reported))}")
        facts["ok"] = True
    except OfaError as fault:
        facts["fault"] = str(fault)
        if as_json:
            print_json(facts)
        raise
    if as_json:
        print_json(facts)


def _steps(connection: Connection) -> Iterator[tuple[str, str]]:
    target = connection.target
    yield from connection.steps()
    description = connection.agent.describe()
    versions = ", ".join(f"{name} {version}" for name, version in sorted(description["runtimes"].items()))
    facts = [description["chip"], description["os"], *map(" ".join, description["software"].items())]
    yield "describe", f"{', '.join(facts)}, runtimes {versions or 'none'}"
    runtime = choose_runtime(target, None, description)
    command = target.commands.get(runtime, "")
    task = reference_job(runtime, target.precision, command)
    budget = Budget(warmup_s=0.1)
    settings = wire.Settings(runtime=runtime, precision=target.precision, threads=1, batch=1, command=command)
    took_ms = time_once(connection.agent, task.block, task.model, settings, budget)
    yield "time a network", f"{took_ms:.2f} ms by {runtime}, {target.precision}, 1 thread"


@targets.command(short_help="Stop the agent and remove its files.", epilog=example("ofa-targets clean jetson-tx2"))
@click.argument("name")
@set_option
def clean(name: str, pairs: tuple[str, ...]) -> None:
    """Stop the agent on the device and remove all files that were copied there."""
    with connect(find_target(name, parse_settings(pairs))) as connection:
        answer.print(f"{name}: {connection.clean()}", markup=False)


@targets.command(short_help="Install the agent's dependencies.", epilog=example("ofa-targets provision jetson-tx2"))
@click.argument("name")
@click.option("--runtime", help="Runtime to install. [default: the first runtime of the target]")
@set_option
def provision(name: str, runtime: str | None, pairs: tuple[str, ...]) -> None:
    """Install the agent's dependencies on a device without internet access.

    Downloads the packages on this machine, copies them to the device, and checks them there.
    """
    with connect(find_target(name, parse_settings(pairs))) as connection:
        connection.say = say
        answer.print(f"{name}: {connection.provision(runtime)}", markup=False)


def _as_json(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "description": target.description,
        "connection": target.connection,
        "address": target.address,
        "models": list(target.models),
        "runtimes": list(target.runtimes),
        "precision": target.precision,
        "set": {**target.settings, **target.conditions},
        "suggest": dict(target.suggest),
        "notes": list(target.notes),
        "engine": dict(target.engine),
        "commands": {runtime: json.loads(text) for runtime, text in target.commands.items()},
        "from": dict(target.origins),
    }


main = run(targets)
