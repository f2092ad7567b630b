"""Turn a failed login into one error: what happened, to which board, and what to do."""

import errno
import socket
from pathlib import Path

import paramiko
from paramiko.ssh_exception import NoValidConnectionsError

from ofa_profiler.connections.ssh.host_key import Answer, Status
from ofa_profiler.connections.ssh.key_blob import KeyBlob
from ofa_profiler.connections.ssh.login import PORT, Login
from ofa_tables.errors import DeviceError, Unreachable


def explain(error: Exception, login: Login, name: str, with_password: bool) -> DeviceError:
    """Return the error for a failed login; ``name`` is the target."""
    at = f"{login.host} port {login.port}"
    if isinstance(error, paramiko.PasswordRequiredException):
        return DeviceError(
            f"a key for {login} has a passphrase; add it to the agent with ssh-add, or give it with "
            "--set password-file=FILE"
        )
    if isinstance(error, paramiko.AuthenticationException):
        return _refused(login, name, with_password)
    if login.proxy_command:
        reason = "it ended" if isinstance(error, paramiko.ProxyCommandFailure | EOFError) else error
        return Unreachable(
            f"{name}: the ProxyCommand for {login.alias or login.host} leads to no SSH server ({reason}); check that "
            f"it works: {login.proxy_command}"
        )
    if isinstance(error, paramiko.ChannelException) and login.via:
        return Unreachable(
            f"{name}: {login.via.host} cannot connect to {at} ({error.text}); is the board on, and is it that port?"
        )
    if isinstance(error, paramiko.SSHException):
        return Unreachable(f"{name}: what answers at {at} does not log in: {error}")
    if isinstance(error, socket.gaierror):
        return Unreachable(
            f"{name}: no host is called {login.host}; correct the address in targets.toml or ~/.ssh/config"
        )
    if isinstance(error, NoValidConnectionsError):
        codes = {getattr(each, "errno", 0) for each in error.errors.values()}
        if not codes & {errno.EHOSTUNREACH, errno.ENETUNREACH}:
            return Unreachable(f"{name}: nothing answers at {at}; is sshd running there, and is it that port?")
        return _no_answer(login, name)
    if isinstance(error, TimeoutError):
        return _no_answer(login, name)
    if isinstance(error, EOFError):
        return Unreachable(f"{name}: {at} hung up while logging in")
    return Unreachable(f"{name}: {at}: {getattr(error, 'strerror', None) or error}")


def explain_host_key(answer: Answer, key: KeyBlob, login: Login, name: str) -> DeviceError:
    """Return the error for a host key that is not known."""
    who = f"the host key of {name} ({login.host})"
    notes = "".join(f"; {note}" for note in answer.notes)
    if answer.status is Status.REVOKED:
        return DeviceError(
            f"{who} is revoked in {answer.place}: {key.kind} {key.fingerprint}; do not connect, and give the board a "
            "new host key"
        )
    if answer.status is Status.CHANGED:
        return DeviceError(
            f"{who} has changed; if the board was set up again, remove the old key with "
            f"ssh-keygen -R '{login.known_as}', if not, somebody may intercept the connection ({answer.place} has "
            f"another key){notes}"
        )
    return DeviceError(
        f"{who} is not known yet: {key.kind} {key.fingerprint}; if that is the board's, {_add(key, login)}{notes}"
    )


def _add(key: KeyBlob, login: Login) -> str:
    if login.via or login.proxy_command or login.host_key_alias or not login.known_hosts:
        return f"log in once with ssh {login.alias or login.host} and accept the key"
    kind = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(key.kind, "ecdsa")
    port = "" if login.port == PORT else f"-p {login.port} "
    return f"add it with ssh-keyscan {port}-t {kind} {login.host} >> {login.known_hosts[0]}"


def _refused(login: Login, name: str, with_password: bool) -> DeviceError:
    tried = ", ".join(Path(path).name for path in login.existing_keys) or "the keys of the agent"
    port = f"-p {login.port} " if login.port != PORT else ""
    return DeviceError(
        f"{name} refused the login of {login.user} at {login.host} (tried {tried}"
        f"{' and the password' if with_password else ''}); check that ssh {port}{login.user}@{login.host} works, or "
        "give --set password-file=FILE"
    )


def _no_answer(login: Login, name: str) -> Unreachable:
    return Unreachable(f"{name}: no answer from {login.host} port {login.port}; is the board on, and in this network?")
