"""Read known_hosts files line by line as OpenSSH does: lines that it skips are skipped, with their reason."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ofa_profiler.connections.ssh.key_blob import KeyBlob, decode_key
from ofa_profiler.connections.ssh.patterns import matches_host

REVOKED, AUTHORITY = "@revoked", "@cert-authority"
LONGEST_MARKER = 31
HASHED = "|1|"


@dataclass(frozen=True)
class Entry:
    """A key that a line gives to a host; ``marker`` is empty, REVOKED or AUTHORITY."""

    place: str  # file and line
    key: KeyBlob
    marker: str = ""


@dataclass
class KnownKeys:
    """The keys of one host in all files; ``skipped`` says why lines for this host, and files, do not count."""

    entries: list[Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def marked(self, marker: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.marker == marker]


def find_keys(files: Iterable[str], host: str) -> KnownKeys:
    """Collect the keys of a host. ``host`` has the form of known_hosts: a name, or ``[name]:port``."""
    found = KnownKeys()
    for path in files:
        try:
            with open(path, "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            continue
        except OSError as error:
            found.skipped.append(f"cannot read {path}: {error.strerror}")
            continue
        for number, line in enumerate(lines, 1):
            place = f"{path} line {number}"
            try:
                entry = _entry(line.partition(b"\0")[0].decode(errors="surrogateescape"), host, place)
            except ValueError as error:
                found.skipped.append(f"{place} is skipped: {error}")
                continue
            if entry is not None:
                found.entries.append(entry)
    return found


def hashed_name(host: str, salt: bytes) -> str:
    """Return the form of a host name that HashKnownHosts writes."""
    digest = hmac.digest(salt, host.encode(errors="surrogateescape"), hashlib.sha1)
    return HASHED + "|".join(base64.b64encode(part).decode() for part in (salt, digest))


def _entry(line: str, host: str, place: str) -> Entry | None:
    """The entry of a line; None if it is not about the host. Raises ValueError if OpenSSH skips the line."""
    line = line.lstrip(" \t")
    if not line or line.startswith("#"):
        return None
    marker, line = _marker(line)
    names, rest = _cut(line)
    if not _names_host(names, host):
        return None
    if not rest or rest.startswith("#"):
        raise ValueError("it has no key")
    kind, rest = _cut(rest)
    return Entry(place, decode_key(kind, _cut(rest)[0]), marker)


def _marker(line: str) -> tuple[str, str]:
    if not line.startswith("@"):
        return "", line
    # OpenSSH ends a marker at the first blank; at the first tab only in a line without blanks.
    marker, separator, rest = line.partition(" " if " " in line else "\t")
    if not separator or len(marker) > LONGEST_MARKER or marker not in (REVOKED, AUTHORITY):
        raise ValueError(f"{marker[:LONGEST_MARKER]!r} is not a marker")
    rest = rest.lstrip(" \t")
    if rest.startswith("@"):
        raise ValueError("it has two markers")
    return marker, rest


def _cut(text: str) -> tuple[str, str]:
    found = re.match(r"([^ \t]*)[ \t]*(.*)", text, re.DOTALL)
    assert found is not None
    return found[1], found[2]


def _names_host(names: str, host: str) -> bool:
    if not names.startswith("|"):
        return matches_host(host, names)
    salt = names.removeprefix(HASHED).partition("|")[0]
    try:
        salt_bytes = base64.b64decode(salt, validate=True)
    except (binascii.Error, ValueError):
        salt_bytes = b""
    if not names.startswith(HASHED) or len(salt_bytes) != hashlib.sha1().digest_size:
        raise ValueError("its hashed host name is damaged")
    return hashed_name(host, salt_bytes) == names
