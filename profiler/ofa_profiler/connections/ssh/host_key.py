"""Whether the key that a server presents is known, as OpenSSH decides it."""

import contextlib
import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ofa_profiler.connections.ssh.certificate import parse_certificate
from ofa_profiler.connections.ssh.key_blob import CERTIFICATE, KeyBlob, decode_key
from ofa_profiler.connections.ssh.known_hosts import AUTHORITY, REVOKED, Entry, KnownKeys, find_keys
from ofa_profiler.connections.ssh.patterns import matches, matches_list
from ofa_tables.errors import FileError

# The algorithms that paramiko verifies, in the order of OpenSSH: certificates first.
_PLAIN = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
ALGORITHMS = (*(f"{name}{CERTIFICATE}" for name in _PLAIN), *_PLAIN)
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


@dataclass(frozen=True)
class Presented:
    """What a server presents: its key, and the blob of a certificate of this key, if it has one."""

    key: KeyBlob
    certificate: bytes | None = None


@dataclass(frozen=True)
class Names:
    """How known_hosts calls a host: ``name`` with the port, then ``without_port``; certificates are for ``host``."""

    name: str
    without_port: str
    host: str


def check_host_key(presented: Presented, files: Sequence[str], names: Names) -> Answer:
    """Look up the certificate, then the key; where a name has neither, the name without the port may have it."""
    keys = find_keys(files, names.name)
    bare = find_keys(files, names.without_port) if names.without_port != names.name else KnownKeys()
    certified = _check_certificate(presented, keys, names.host)
    if certified.status in (Status.KNOWN, Status.REVOKED):
        return certified
    if presented.certificate is not None and not certified.notes:
        other = _check_certificate(presented, bare, names.host)
        other = _compare(presented.key, bare) if other.status is Status.UNKNOWN else other
        if other.status is Status.KNOWN:
            return other
    answer = _compare(presented.key, keys)
    if answer.status is Status.UNKNOWN:
        other = _compare(presented.key, bare)
        if other.status in (Status.KNOWN, Status.REVOKED):
            return other
        other = _check_certificate(presented, bare, names.host)
        if other.status is Status.REVOKED:
            return other
    return replace(answer, notes=(*certified.notes, *answer.notes))


def _check_certificate(presented: Presented, keys: KnownKeys, host: str) -> Answer:
    """UNKNOWN with a note if an authority is trusted but its certificate does not count."""
    if presented.certificate is None:
        return Answer(Status.UNKNOWN)
    try:
        certificate = parse_certificate(presented.certificate)
    except ValueError as error:
        return Answer(Status.UNKNOWN, notes=(str(error),))
    revoked = _same(presented.key, keys.marked(REVOKED)) or _same(certificate.authority, keys.marked(REVOKED))
    if revoked:
        return Answer(Status.REVOKED, revoked.place)
    trusted = _same(certificate.authority, keys.marked(AUTHORITY))
    problem = certificate.problem(host) if trusted else None
    if trusted is None or problem:
        return Answer(Status.UNKNOWN, notes=(problem,) if problem else ())
    return Answer(Status.KNOWN, trusted.place)


def check_revocation_file(presented: Presented, path: str) -> Answer | None:
    """Return the answer if the file of RevokedHostKeys lists the key, or its authority. Raises FileError."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read RevokedHostKeys {path}: {error.strerror}; fix ~/.ssh/config") from None
    if content.startswith(REVOCATION_LIST):
        raise FileError(f"{path} is a revocation list that only ssh can read; list public keys in it instead")
    keys = [presented.key]
    if presented.certificate is not None:
        with contextlib.suppress(ValueError):
            keys.append(parse_certificate(presented.certificate).authority)
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        try:
            kind, encoded = line.split()[:2]
            revoked = decode_key(kind, encoded)
        except ValueError:
            continue  # blank, a comment, or not a key
        if revoked in keys:
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


def preferred_algorithms(allowed: Sequence[str], files: Sequence[str], name: str) -> list[str]:
    """Order signature algorithms as ssh does: if no known key has the type of the first, those of known keys first."""
    known = find_keys(files, name)
    kinds = {entry.key.kind for entry in known.marked("")}
    if not allowed or _kind(allowed[0]) in kinds:
        return list(allowed)
    authority = bool(known.marked(AUTHORITY))
    first = [each for each in allowed if (authority and each.endswith(CERTIFICATE)) or _kind(each) in kinds]
    return first + [each for each in allowed if each not in first]


def _kind(algorithm: str) -> str:
    plain = algorithm.removesuffix(CERTIFICATE)
    return "ssh-rsa" if plain.startswith("rsa-") else plain


def _compare(key: KeyBlob, keys: KnownKeys) -> Answer:
    plain = keys.marked("")
    revoked = _same(key, keys.marked(REVOKED))
    if revoked:
        return Answer(Status.REVOKED, revoked.place)
    known = _same(key, plain)
    if known:
        return Answer(Status.KNOWN, known.place)
    notes = tuple(keys.skipped)
    return Answer(Status.CHANGED, plain[-1].place, notes) if plain else Answer(Status.UNKNOWN, notes=notes)


def _same(key: KeyBlob, entries: Iterable[Entry]) -> Entry | None:
    return next((entry for entry in entries if entry.key == key), None)
