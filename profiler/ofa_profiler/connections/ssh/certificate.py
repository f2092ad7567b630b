"""Certificates of host keys: who signed them, for which names, and until when (OpenSSH's PROTOCOL.certkeys)."""

import time
from dataclasses import dataclass

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm

from ofa_profiler.connections.ssh.key_blob import CERTIFICATE, KeyBlob, Reader
from ofa_profiler.connections.ssh.patterns import matches

HOST = 2  # the type of a certificate; 1 is a user's
_FIELDS_OF_KEY = {"ssh-ed25519": 1, "ssh-rsa": 2, "ecdsa": 2}
_WEAK_SIGNATURES = ("ssh-rsa", "ssh-dss")


@dataclass(frozen=True)
class Certificate:
    """A certificate that ``authority`` has signed; times are in seconds since 1970."""

    authority: KeyBlob
    kind: int
    names: tuple[str, ...]
    valid_after_s: int
    valid_before_s: int
    critical: bytes

    def problem(self, host: str) -> str | None:
        """Say why the certificate does not vouch for a host; None if it does."""
        if self.kind != HOST:
            return "the certificate is not for a host"
        if not self.valid_after_s <= time.time() < self.valid_before_s:
            return "the certificate is not valid now"
        if not any(matches(host, name) for name in self.names):
            return f"the certificate is for {', '.join(self.names) or 'no host'}, not for {host}"
        if self.critical:
            return "the certificate has options that ofa-profile does not know"
        return None


def parse_certificate(blob: bytes) -> Certificate:
    """Read a certificate and verify its signature. Raises ValueError with the reason if it is damaged."""
    reader = Reader(blob)
    kind = reader.string().decode(errors="replace").removesuffix(CERTIFICATE)
    reader.string()  # nonce
    for _ in range(_FIELDS_OF_KEY.get(kind.partition("-sha2-")[0], 0)):
        reader.string()
    reader.number(8)  # serial
    of_host = reader.number(4)
    reader.string()  # identity, for logs
    names = Reader(reader.string()).strings()
    after, before = reader.number(8), reader.number(8)
    critical = reader.string()
    reader.string()  # extensions
    reader.string()  # reserved
    authority = reader.string()
    signed = blob[: reader.position]
    signature = reader.string()
    key = KeyBlob(Reader(authority).string().decode(errors="replace"), authority)
    if reader.position != len(blob) or not _has_signed(key, signed, signature):
        raise ValueError("the signature of the certificate is wrong")
    decoded = tuple(name.decode(errors="replace") for name in names)
    return Certificate(key, of_host, decoded, after, before, critical)


def _has_signed(authority: KeyBlob, signed: bytes, signature: bytes) -> bool:
    if Reader(signature).string().decode(errors="replace") in _WEAK_SIGNATURES:
        return False
    try:
        key = paramiko.PKey.from_type_string(authority.kind, authority.blob)
        return bool(key.verify_ssh_sig(signed, paramiko.Message(signature)))
    except (paramiko.SSHException, ValueError, IndexError, TypeError, UnsupportedAlgorithm):
        return False
