"""The header of a table file, which is read before SQLite opens the file."""

import os
from pathlib import Path

from ofa_tables.errors import FileError, TableUnreadable
from ofa_tables.reading import require_regular
from ofa_tables.store.failures import damaged, foreign
from ofa_tables.store.schema import APPLICATION_ID, FORMAT, OLDEST_FORMAT

# https://www.sqlite.org/fileformat.html, "The Database Header": byte 18 is the journal mode, byte 60 user_version,
# byte 68 application_id.
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
ROLLBACK_JOURNAL = 1


def require_ours(path: Path) -> bytes:
    """Read the header before SQLite opens the file, so that other files stay unchanged. Raises TableUnreadable."""
    if os.path.isdir(path):
        raise TableUnreadable(f"{path} is a directory; give the table file")
    if not os.path.exists(path):
        raise TableUnreadable(f"{path} does not exist; create it with ofa-profile or ofa-table import")
    try:
        require_regular(path)
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileError as error:
        raise TableUnreadable(f"{error}; check its type and its permissions") from None
    if header[:16] != _MAGIC[: len(header)]:
        raise foreign(path)
    if len(header) < _HEADER_BYTES:
        raise damaged(path, f"truncated after {len(header)} bytes")
    version, application = (int.from_bytes(header[at : at + 4], "big") for at in (60, 68))
    if application != APPLICATION_ID:
        raise foreign(path)
    if version > FORMAT:
        raise TableUnreadable(
            f"{path} has table format {version}; this ofa-profile reads formats up to {FORMAT}; update ofa-profile"
        )
    if version < OLDEST_FORMAT:
        raise TableUnreadable(
            f"{path} has table format {version}; this ofa-profile reads formats {OLDEST_FORMAT} to {FORMAT}; "
            "measure again with --fresh, or import its export"
        )
    return header
