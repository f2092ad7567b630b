"""Write files atomically."""

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from ofa_tables.errors import FileError


def require_writable(path: Path) -> None:
    """Check that a file can be written, before the work that produces it. Raises FileError."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces ``path`` when the block succeeds. Raises FileError if that fails."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> FileError:
    return FileError(f"cannot write {path}: {error.strerror or error}; check that its folder exists and is writable")


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write new files, all of them or none, and create missing folders.

    Raises FileError if a file exists or cannot be written.
    """
    for path in contents:
        if os.path.lexists(path):
            raise FileError(f"{path} already exists; choose another --out, or remove it")
    drafts = {path.with_name(f".{path.name}.{secrets.token_hex(4)}"): path for path in contents}
    made = _missing_folders(contents)
    path = next(iter(contents))
    try:
        for draft, path in drafts.items():
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(contents[path])
        for draft, path in drafts.items():
            os.rename(draft, path)
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror}; check that the folder is writable and the disk is not full"
        ) from None
    finally:
        for draft in drafts:
            with contextlib.suppress(OSError):
                draft.unlink()
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # fails if it contains the new files


def _missing_folders(paths: Mapping[Path, bytes]) -> list[Path]:
    """Return the folders to create, deepest first."""
    parents = {parent for path in paths for parent in path.parents}
    return sorted(
        (parent for parent in parents if not os.path.lexists(parent)), key=lambda path: len(path.parts), reverse=True
    )


def _umask() -> int:
    umask = os.umask(0o022)  # it can only be read by setting it
    os.umask(umask)
    return umask
