"""Find a function of the user: ``module:function`` or ``file.py:function``."""

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ofa_agent.text import one_line
from ofa_nas.spaces.architecture import Architecture
from ofa_tables.errors import UsageError
from ofa_tables.reading import read_text

MAX_BYTES = 8 << 20
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")

Evaluate = Callable[[list[Architecture]], Sequence[float]]


@dataclass(frozen=True)
class Loaded:
    """A function, and its name for messages. Another process loads it again by its name, or unpickles it."""

    name: str
    function: Evaluate
    by_name: bool

    def __reduce__(self) -> Any:
        return (_load_once, (self.name,)) if self.by_name else (Loaded, (self.name, self.function, False))


def is_function(source: str) -> bool:
    """Return whether ``source`` names a function, and not a file."""
    place, _, name = source.rpartition(":")
    is_place = place.endswith(".py") or _MODULE.fullmatch(place) is not None
    return is_place and name.isidentifier() and not Path(source).exists()


def load(source: str) -> Loaded:
    """Import the module, or run the file, and return its function. Raises UsageError, FileError."""
    place, _, name = source.rpartition(":")
    module = _from_file(place) if place.endswith(".py") else _imported(place)
    function = getattr(module, name, None)
    if not callable(function):
        own = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        what = "is not a function" if function is not None else "does not exist"
        raise UsageError(f"{source}: {name} {what}; {place} has {', '.join(sorted(own)[:8]) or 'no functions'}")
    return Loaded(source, function, by_name=True)


@lru_cache(maxsize=1)
def _load_once(source: str) -> Loaded:
    """Load in a worker, where every batch names the function."""
    return load(source)


def _imported(place: str) -> ModuleType:
    _add_folder(os.getcwd())
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:  # the code of the user can raise anything
        raise UsageError(
            f"{place} does not import: {said(error)}; give an installed module, one in the current folder, or the path "
            "of a .py file"
        ) from None


def _from_file(place: str) -> ModuleType:
    """Run the file as a module. Its folder is searched for what it imports."""
    path = Path(place)
    text = read_text(path, MAX_BYTES, "a Python file", "give --accuracy file.py:function")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    _add_folder(str(path.resolve().parent))
    sys.modules.setdefault(path.stem, module)  # dataclasses look for the module of a class
    try:
        exec(compile(text, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise UsageError(f"{place} does not run: {said(error)}") from None
    return module


def _add_folder(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def said(error: BaseException) -> str:
    """Return the type and the text of an error, in one line."""
    text = one_line(str(error), 300)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
