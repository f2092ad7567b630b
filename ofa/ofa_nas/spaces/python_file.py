"""Read a Space from a Python file of the user: ``FILE.py:NAME``. The file is run, as if it were imported."""

import sys
import types
from functools import lru_cache
from pathlib import Path

from ofa_nas.spaces.space import Space
from ofa_tables.errors import FileError, UnknownName, UsageError
from ofa_tables.reading import read_text

MAX_BYTES = 1 << 20


def read_python(path: Path, name: str | None) -> Space:
    """Raises FileError if the file cannot be read or run, and UsageError if it has no Space of this name."""
    module = _module(path, read_text(path, MAX_BYTES, "a Python file", "give a file such as my_file.py"))
    spaces = {key: value for key, value in vars(module).items() if isinstance(value, Space)}
    if name in spaces:
        return spaces[name]
    if not spaces:
        raise UsageError(f"{path} has no Space; assign one to a name, such as SPACE = InvertedResidualSpace(…)")
    if name is None:
        raise UsageError(f"{path} needs the name of a Space in it, such as {path}:{next(iter(spaces))}")
    raise UnknownName(f"Space in {path}", name, spaces)


@lru_cache(maxsize=16)
def _module(path: Path, text: str) -> types.ModuleType:
    """Run the file as a module. Other modules in its folder can be imported."""
    module = types.ModuleType(f"ofa_space_of_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look for it
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        exec(compile(text, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:  # the code of the user can raise anything
        line = _line(error, str(path))
        raise FileError(f"{path}{line} does not run: {type(error).__name__}: {str(error)[:200]}") from error
    finally:
        sys.path.pop(0)
    return module


def _line(error: BaseException, path: str) -> str:
    number, trace = None, error.__traceback__
    while trace is not None:
        number = trace.tb_lineno if trace.tb_frame.f_code.co_filename == path else number
        trace = trace.tb_next
    return f", line {number}," if number else ""
