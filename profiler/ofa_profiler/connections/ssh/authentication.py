"""Log in with the keys that ssh would use, in its order: keys of the agent, identity files, then a password."""

import os
import socket
from collections.abc import Iterator, Sequence

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.agent import AgentSSH

from ofa_profiler.connections.ssh.key_blob import certifies, decode_key
from ofa_profiler.connections.ssh.login import Login

# What the loaders raise for a file that is not a private key, or of a type that paramiko cannot use.
_UNUSABLE = (paramiko.SSHException, OSError, ValueError, UnsupportedAlgorithm)


class Authentication:
    """The strategy that ``SSHClient.connect`` calls once the host key has been verified.

    ``password`` also opens keys that have a passphrase. Raises AuthenticationException, and PasswordRequiredException
    if a key with a passphrase was the only one left.
    """

    def __init__(self, login: Login, password: str | None) -> None:
        self._login = login
        self._password = password
        self._locked = False
        self._agent: AgentSSH | None = None

    def authenticate(self, transport: paramiko.Transport) -> None:
        try:
            if not self._with_keys(transport):
                self._with_password(transport)
        finally:
            if isinstance(self._agent, paramiko.Agent | _AgentAt):
                self._agent.close()

    def _with_keys(self, transport: paramiko.Transport) -> bool:
        """True if a key was accepted and nothing else is required."""
        for key in self._keys() if self._login.public_keys else ():
            try:
                required = transport.auth_publickey(self._login.user, key)
                return not required  # the server may accept the key and require a password, too
            except paramiko.BadAuthenticationType:
                return False
            except paramiko.SSHException:
                if not transport.is_active():
                    raise
        return False

    def _with_password(self, transport: paramiko.Transport) -> None:
        if self._password is not None:
            transport.auth_password(self._login.user, self._password)
        elif self._locked:
            raise paramiko.PasswordRequiredException("a key has a passphrase")
        else:
            raise paramiko.AuthenticationException("no key was accepted")

    def _keys(self) -> Iterator[paramiko.PKey]:
        listed = {blob: path for path in self._login.keys if (blob := _public_blob(path))}
        in_agent = {key.asbytes(): key for key in self._agent_keys()}
        yield from (in_agent[blob] for blob in listed if blob in in_agent)
        if not self._login.only_these_keys:
            yield from (key for blob, key in in_agent.items() if blob not in listed)
        taken = {path for blob, path in listed.items() if blob in in_agent}
        for path in self._login.existing_keys:
            key = None if path in taken else self._load(path)
            if key is not None:
                yield key
                if key.public_blob is not None:  # after the certificate, ssh offers the key itself
                    key.public_blob = None
                    yield key

    def _load(self, path: str) -> paramiko.PKey | None:
        password = self._password.encode() if self._password is not None else None
        for attempt in (password, None) if password is not None else (None,):  # a key without passphrase takes none
            try:
                key = paramiko.PKey.from_path(path, attempt)  # type: ignore[arg-type]
            except TypeError:  # a passphrase is missing, or was given to a key without one
                self._locked |= attempt is None
            except _UNUSABLE:
                continue
            else:
                _certify(key, self._login.certificates)
                return key
        return None

    def _agent_keys(self) -> Sequence[paramiko.AgentKey]:
        where = self._login.identity_agent
        if where.lower() == "none":
            return ()
        if where.startswith("$"):
            where = os.environ.get(where[1:], "")
            if not where:
                return ()
        try:
            self._agent = _AgentAt(where) if where not in ("", "SSH_AUTH_SOCK") else paramiko.Agent()
        except (OSError, paramiko.SSHException):
            return ()  # ssh goes on without the agent, too
        return self._agent.get_keys()


class _AgentAt(AgentSSH):
    """The agent at a socket that IdentityAgent names."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(path)
        self._connect(connection)  # type: ignore[attr-defined]

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


def _public_blob(path: str) -> bytes | None:
    """The public key beside an identity file, or in it; None if there is none."""
    for place in (f"{path}.pub", path):
        try:
            with open(place, "rb") as file:
                kind, encoded = file.read(1 << 16).split()[:2]
            return decode_key(kind.decode(), encoded.decode()).blob
        except (OSError, ValueError):
            continue
    return None


def _certify(key: paramiko.PKey, certificates: Sequence[str]) -> None:
    """Attach the certificate of this key, if a CertificateFile has one."""
    for path in certificates:
        before = key.public_blob
        try:
            key.load_certificate(path)
        except (*_UNUSABLE, IndexError):
            continue
        if key.public_blob and certifies(key.public_blob.key_blob, key.asbytes()):
            return
        key.public_blob = before
