"""Check the structure of a torch file before torch reads it: torch allocates what the file claims.

A torch file is a zip archive of a pickle and of one record per storage, uncompressed. Before version 1.6 of torch, it
was a row of pickles and storages.
"""

import pickletools
import zipfile
from io import BufferedReader

from ofa_nas.supernet.pickle_sizes import Objects
from ofa_tables.reading import zip_problem

MOST_PICKLE_BYTES = 16 << 20  # a pickle of a thousand tensors has 100 kB; a million values take 10 s to read
MOST_VALUES = 2_000_000
MOST_RECORDS = 100_000
MOST_NAME = 200  # of a type; torch searches its message about an unknown one in quadratic time
_TOO_MANY_VALUES = (
    f"it has more than {MOST_PICKLE_BYTES >> 20} MiB of values beside its tensors, or {MOST_VALUES:,} values"
)
_ZIP = b"PK\x03\x04"
_LEGACY_PICKLES = 4  # magic number, protocol, system, value; storages follow
_PERSISTENT = ("BINPERSID", "PERSID")
_NAMES = ("GLOBAL", "INST")
_REMEMBERED = 12  # operations before a storage is named, in which its size is given


def archive_problem(file: BufferedReader, file_bytes: int) -> str:
    """Say why torch should not read the file; empty if it can. The position in the file is 0 afterwards."""
    start = file.read(len(_ZIP))
    file.seek(0)
    problem = _zip_problem(file, file_bytes) if start == _ZIP else _legacy_problem(file, file_bytes)
    file.seek(0)
    return problem


def _zip_problem(file: BufferedReader, file_bytes: int) -> str:
    problem = zip_problem(file, MOST_RECORDS)
    if problem:
        return problem
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            return "a record is compressed, which torch does not write"
        if sum(member.file_size for member in members) > file_bytes:
            return "its records claim more bytes than the file has"
        pickles = [member for member in members if member.filename.endswith(".pkl")]
        if any(member.file_size > MOST_PICKLE_BYTES for member in pickles):
            return _TOO_MANY_VALUES
        problems = (_pickle_problem(archive.read(member), file_bytes) for member in pickles)
        return next(filter(None, problems), "")


def _legacy_problem(file: BufferedReader, file_bytes: int) -> str:
    problems = (_pickle_problem(file, file_bytes) for _ in range(_LEGACY_PICKLES))
    return next(filter(None, problems), "")


def _pickle_problem(content: BufferedReader | bytes, file_bytes: int) -> str:
    """Check the sizes of storages and the names of types in one pickle. Raises ValueError if it is damaged."""
    numbers: list[int] = []
    objects = Objects()
    for count, (operation, argument, position) in enumerate(pickletools.genops(content)):
        if operation.name in _PERSISTENT and any(number > file_bytes for number in numbers):
            return "a storage claims more bytes than the file has"
        if operation.name in _NAMES and len(str(argument)) > MOST_NAME:
            return f"the name of a type has more than {MOST_NAME} characters"
        numbers = [*numbers[1 - _REMEMBERED :], argument if isinstance(argument, int) else 0]
        if count > MOST_VALUES or (position is not None and position > MOST_PICKLE_BYTES):
            return _TOO_MANY_VALUES
        objects.apply(operation, argument)
    return _TOO_MANY_VALUES if objects.largest(MOST_VALUES) > MOST_VALUES else ""
