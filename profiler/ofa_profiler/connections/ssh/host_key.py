"""Whether the key that a server presents is known, as OpenSSH decides it."""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa_profiler.connections.ssh.key_blob import KeyBlob, decode_key
from ofa_profiler.connections.ssh.known_hosts import AUTHORITY, REVOKED, Entry, KnownKeys, find_keys
from ofa_profiler.connections.ssh.patterns import matches, matches_list
from ofa_tables.errors import FileError

# The algorithms that paramiko verifies, in the order of OpenSSH.
ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
REVOCATION_LIST = b"SSHKRL\n\0"


class Status(enum.Enum):
    """The answer about a host key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Answer:
    """``place`` is the file and line that decided; ``notes`` are lines that were skipped, and other findings."""

    status: Status
    place: str = ""
    notes: tuple[str, ...] = ()


def check_host_key(key: KeyBlob, files: Sequence[str], name: str, name_without_port: str) -> Answer:
    """Look a key up under ``name``, and if that name has no key, under the name without the port.

    Pass the same name twice if the port does not matter.
    """
    keys = find_keys(files, name)
    answer = _compare(key, keys)
    if answer.status is not Status.UNKNOWN or name_without_port == name:
        return answer
    other = _compare(key, find_keys(files, name_without_port))
    return answer if other.status in (Status.UNKNOWN, Status.CHANGED) else other


def check_revocation_file(key: KeyBlob, path: str) -> Answer | None:
    """Return the answer if the file of RevokedHostKeys lists the key. Raises FileError."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read RevokedHostKeys {path}: {error.strerror}; fix ~/.ssh/config") from None
    if content.startswith(REVOCATION_LIST):
        raise FileError(f"{path} is a revocation list that only ssh can read; list public keys in it instead")
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        try:
            kind, encoded = line.split()[:2]
            revoked = decode_key(kind, encoded)
        except ValueError:
            continue  # blank, a comment, or not a key
        if revoked == key:
            return Answer(Status.REVOKED, f"{path} line {number}")
    return None


def supported_algorithms(wanted: str) -> tuple[str, ...]:
    """Return the algorithms of a HostKeyAlgorithms value that paramiko supports; all for an empty value."""
    sign, names = (wanted[0], wanted[1:]) if wanted[:1] in ("+", "-", "^") else ("", wanted)
    if not names or sign == "+":
        return ALGORITHMS
    if sign == "-":
        return tuple(name for name in ALGORITHMS if not matches_list(name, names))
    listed = dict.fromkeys(name for pattern in names.split(",") for name in ALGORITHMS if matches(name, pattern))
    return tuple(dict.fromkeys((*listed, *ALGORITHMS))) if sign == "^" else tuple(listed)


def preferred_algorithms(keys: KnownKeys, allowed: Sequence[str]) -> list[str]:
    """Order signature algorithms: those of known keys first, unless a known key has the type of the first."""
    kinds = {entry.key.kind for entry in keys.marked("")}
    known = [algorithm for algorithm in allowed if _kind(algorithm) in kinds]
    if not allowed or allowed[0] in known:
        return list(allowed)
    return known + [algorithm for algorithm in allowed if algorithm not in known]


def _kind(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-") else algorithm


def _compare(key: KeyBlob, keys: KnownKeys) -> Answer:
    plain = keys.marked("")
    notes = (*keys.skipped, *_authorities(keys.marked(AUTHORITY)))
    revoked = _same(key, keys.marked(REVOKED))
    if revoked:
        return Answer(Status.REVOKED, revoked.place)
    known = _same(key, plain)
    if known:
        return Answer(Status.KNOWN, known.place)
    if plain:
        return Answer(Status.CHANGED, plain[-1].place, notes)
    return Answer(Status.UNKNOWN, notes=notes)


def _same(key: KeyBlob, entries: Iterable[Entry]) -> Entry | None:
    return next((entry for entry in entries if entry.key == key), None)


def _authorities(entries: Iterable[Entry]) -> list[str]:
    return [f"{entry.place} trusts certificates, which ofa-profile cannot check" for entry in entries]
