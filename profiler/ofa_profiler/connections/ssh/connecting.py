"""Open one SSH connection: reach the server, verify its host key as OpenSSH does, log in."""

import base64
import contextlib
import ipaddress
import os
from pathlib import Path
from typing import Any

import paramiko
from paramiko.ssh_exception import NoValidConnectionsError

from ofa_profiler.connections.ssh.authentication import Authentication
from ofa_profiler.connections.ssh.failures import explain, explain_host_key
from ofa_profiler.connections.ssh.host_key import (
    Answer,
    Names,
    Presented,
    Status,
    check_host_key,
    check_revocation_file,
    preferred_algorithms,
)
from ofa_profiler.connections.ssh.key_blob import KeyBlob
from ofa_profiler.connections.ssh.known_hosts import hashed_name
from ofa_profiler.connections.ssh.login import Login
from ofa_tables.errors import DeviceError

CONNECT_S = 15.0
SALT_BYTES = 20


def connect(
    client: paramiko.SSHClient, login: Login, name: str, password: str | None, via: paramiko.SSHClient | None
) -> None:
    """Connect a new client, through ``via`` if given. Raises DeviceError, Unreachable, FileError."""
    client.set_missing_host_key_policy(_Verify(login, name))
    try:
        client.connect(
            login.host,
            login.port,
            login.user,
            timeout=CONNECT_S,
            banner_timeout=CONNECT_S,
            auth_timeout=CONNECT_S,
            channel_timeout=CONNECT_S,
            sock=_way(login, via),
            transport_factory=_transport_factory(login, name),
            auth_strategy=Authentication(login, password),  # type: ignore[arg-type]
        )
    except (paramiko.SSHException, NoValidConnectionsError, OSError, EOFError) as error:
        raise explain(error, login, name, bool(password)) from None


def answer_about(presented: Presented, login: Login) -> Answer:
    """Decide whether a host key is known. Raises FileError if a file of RevokedHostKeys cannot be used."""
    for path in login.revoked_host_keys:
        revoked = check_revocation_file(presented, path)
        if revoked:
            return revoked
    return check_host_key(presented, login.known_hosts, _names(login))


def _names(login: Login) -> Names:
    alias = login.host_key_alias
    return Names(login.known_as, alias or login.host, alias or login.host)


def _way(login: Login, via: paramiko.SSHClient | None) -> Any:
    if via is not None:
        transport = via.get_transport()
        assert transport is not None
        return transport.open_channel("direct-tcpip", (login.host, login.port), ("127.0.0.1", 0), timeout=CONNECT_S)
    return paramiko.ProxyCommand(login.proxy_command) if login.proxy_command else None


def _transport_factory(login: Login, name: str) -> Any:
    algorithms = preferred_algorithms(login.host_key_algorithms, login.known_hosts, login.known_as)
    if not algorithms:
        raise DeviceError(
            f"{name}: HostKeyAlgorithms for {login.alias or login.host} names none that ofa-profile supports; add "
            "ssh-ed25519 or rsa-sha2-512 in ~/.ssh/config"
        )

    def make(sock: Any, **options: Any) -> paramiko.Transport:
        transport = paramiko.Transport(sock, **options)
        transport.get_security_options().key_types = algorithms
        return transport

    return make


class _Verify(paramiko.MissingHostKeyPolicy):
    """The client has no host keys of its own, so that every key is decided here."""

    def __init__(self, login: Login, name: str) -> None:
        self._login = login
        self._name = name

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        transport = client.get_transport()
        if self._login.trust_localhost and transport is not None and self._is_local(transport):
            return
        certificate = key.public_blob.key_blob if key.public_blob else None
        presented = Presented(KeyBlob(key.get_name(), key.asbytes()), certificate)
        answer = answer_about(presented, self._login)
        if answer.status is Status.KNOWN:
            return
        if answer.status is Status.UNKNOWN and self._login.unknown_host_key in ("accept-new", "no"):
            _remember(presented.key, self._login)
            return
        raise explain_host_key(answer, presented.key, self._login, self._name)

    def _is_local(self, transport: paramiko.Transport) -> bool:
        """NoHostAuthenticationForLocalhost concerns direct connections to a loopback address."""
        if self._login.via or self._login.proxy_command or self._login.host_key_alias:
            return False
        address = transport.getpeername()
        return isinstance(address, tuple) and ipaddress.ip_address(address[0].partition("%")[0]).is_loopback


def _remember(key: KeyBlob, login: Login) -> None:
    """Add a new key to the user's known_hosts, as ssh does for StrictHostKeyChecking accept-new and no."""
    name = hashed_name(login.known_as, os.urandom(SALT_BYTES)) if login.hash_known_hosts else login.known_as
    line = f"{name} {key.kind} {base64.b64encode(key.blob).decode()}\n"
    with contextlib.suppress(OSError):  # ssh continues, too
        path = Path(login.known_hosts[0])
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(line)
