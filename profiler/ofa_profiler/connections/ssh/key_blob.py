"""Public keys as known_hosts and sshd exchange them: a type, and a blob in base64."""

import base64
import binascii
import hashlib
from dataclasses import dataclass

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm

MIN_RSA_BITS = 1024
CERTIFICATE = "-cert-v01@openssh.com"
# Signature algorithms that OpenSSH accepts in place of the type.
_OTHER_NAMES = {"rsa-sha2-256": "ssh-rsa", "rsa-sha2-512": "ssh-rsa"}
_CHECKED = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_UNCHECKED = ("ssh-dss", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com", "ssh-xmss@openssh.com")


@dataclass(frozen=True)
class KeyBlob:
    """A public key. ``kind`` is its type, such as ``ssh-ed25519``."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


class Reader:
    """Read the fields of a blob in order. Raises ValueError where the blob is cut off."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self.position = 0

    def number(self, size: int) -> int:
        """Read an unsigned number of ``size`` bytes."""
        return int.from_bytes(self._take(size), "big")

    def string(self) -> bytes:
        """Read bytes that follow their length."""
        return self._take(self.number(4))

    def strings(self) -> list[bytes]:
        """Read strings up to the end."""
        found = []
        while self.position < len(self._blob):
            found.append(self.string())
        return found

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._blob):
            raise ValueError("its key is cut off")
        taken, self.position = self._blob[self.position : end], end
        return taken


def decode_key(kind: str, encoded: str) -> KeyBlob:
    """Decode a key as OpenSSH does. Raises ValueError with the reason if OpenSSH refuses the key."""
    kind = _OTHER_NAMES.get(kind, kind)
    if kind not in (*_CHECKED, *_UNCHECKED) and not kind.endswith(CERTIFICATE):
        raise ValueError(f"{kind[:40]!r} is not a type of key")
    try:
        blob = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its key is not base64") from None
    inside, *parts = Reader(blob).strings() if kind in _CHECKED else [Reader(blob).string()]
    if inside.decode(errors="replace") != kind:
        raise ValueError(f"its key is not of the type {kind}")
    if kind in _CHECKED:
        _check(kind, blob, parts)
    return KeyBlob(kind, blob)


def certifies(certificate: bytes, key: bytes) -> bool:
    """Whether the blob of a certificate is about the public key of another blob."""
    try:
        outer, inner = Reader(certificate), Reader(key)
        outer.string()
        outer.string()  # nonce
        inner.string()
    except ValueError:
        return False
    return certificate[outer.position :].startswith(key[inner.position :])


def _check(kind: str, blob: bytes, parts: list[bytes]) -> None:
    if len(parts) != (1 if kind == "ssh-ed25519" else 2):
        raise ValueError("its key is damaged")
    if kind == "ssh-rsa" and int.from_bytes(parts[1], "big").bit_length() < MIN_RSA_BITS:
        raise ValueError(f"its RSA key is shorter than {MIN_RSA_BITS} bits")
    try:
        paramiko.PKey.from_type_string(kind, blob)
    except (paramiko.SSHException, ValueError, IndexError, TypeError, UnsupportedAlgorithm):
        raise ValueError("its key is damaged") from None
