"""What all commands share: how they fail, how they print, how they read common flags."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from ofa_tables.errors import OfaError, UsageError

# Progress and messages go to standard error; standard output holds the answer alone.
console = Console(stderr=True, highlight=False, soft_wrap=True)
answer = Console(highlight=False, soft_wrap=True)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output, as its last line."
)


def example(*lines: str) -> str:
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))  # \b: click leaves the lines as they are


def say(text: str) -> None:
    """What happens meanwhile, for the user."""
    console.print(escape(text))


def say_error(text: str) -> None:
    console.print(f"[bold red]error:[/] {escape(text)}")


LINE_S = 10.0


class NowAndThen:
    """Called whenever there is something new to show, tells whether it is time to: not again before ``seconds``."""

    def __init__(self, seconds: float = LINE_S) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def duration(seconds: float) -> str:
    """As long as something will take, about."""
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value))


KEPT = "what was measured is kept, the same command goes on from there"


def run(command: click.Command, kept: str = KEPT) -> Callable[[], None]:
    """The entry point of a command: one clear line and an exit code for every failure, never a traceback. ``kept`` is
    what an interrupted one says."""

    def main() -> None:
        try:
            command.main(standalone_mode=False)
            code = 0
        except click.ClickException as error:
            error.show()
            code = 2
        except OfaError as error:
            say_error(str(error))
            code = error.exit_code
        except (KeyboardInterrupt, click.Abort):
            console.print(f"interrupted; {kept}")
            code = 130
        except BrokenPipeError:  # the reader of our output went away
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except OSError as error:
            place = error.filename or "the output"
            say_error(f"{place}: {error.strerror}")
            code = 1
        sys.exit(code)

    return main


class Resolutions(click.ParamType[tuple[int, ...]]):
    """``160,176``; ``all`` becomes the empty tuple."""

    name = "PX,PX…|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if value == "all":
            return ()
        try:
            return tuple(dict.fromkeys(int(part) for part in str(value).split(",")))
        except ValueError:
            raise UsageError(f"--resolutions takes numbers such as 160,192 or the word all, not {value!r}") from None
