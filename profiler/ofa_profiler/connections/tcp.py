"""Connection ``tcp``: an agent that was started with ``ofa-agent serve``."""

import ipaddress
from pathlib import Path

import grpc

from ofa_profiler.connections.client import CHANNEL_OPTIONS, Agent
from ofa_profiler.connections.connection import Connection
from ofa_profiler.targets.target import Target
from ofa_tables.errors import FileError, UsageError

PLAINTEXT = "plaintext"
SETTINGS = ("token-file", "tls-ca", PLAINTEXT)


class TcpConnection(Connection):
    """``token-file`` contains the agent's token; ``tls-ca`` the certificate that signs the agent's.

    ``plaintext=allow`` sends the token to another machine without TLS.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.require_settings(SETTINGS)
        if not target.address.rpartition(":")[2].isdigit():
            raise UsageError(f"{target.name} names no port; write tcp:HOST:PORT, as ofa-agent serve prints it")
        if target.settings.get(PLAINTEXT, "allow") != "allow":
            raise UsageError(f"{PLAINTEXT} must be allow, not {target.settings[PLAINTEXT]!r}")
        self._channel: grpc.Channel | None = None

    def open(self) -> Agent:
        authority = self._content("tls-ca")
        if authority is None and "token-file" in self.target.settings:
            self._require_private()
        if authority is None:
            self._channel = grpc.insecure_channel(self.target.address, CHANNEL_OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(authority)
            self._channel = grpc.secure_channel(self.target.address, credentials, CHANNEL_OPTIONS)
        token = self._content("token-file")
        return Agent(self._channel, self.target.name, token.decode().strip() if token else None)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _require_private(self) -> None:
        """Refuse to send the token in clear to another machine. Raises UsageError."""
        if _is_loopback(self.target.address.rpartition(":")[0].strip("[]")):
            return
        in_clear = f"{self.target.name}: without --set tls-ca=FILE anyone on the way can read the token"
        if PLAINTEXT not in self.target.settings:
            raise UsageError(
                f"{in_clear}; give the certificate that signs the agent's, connect through an SSH tunnel to a port of "
                f"this machine, or accept it with --set {PLAINTEXT}=allow"
            )
        self.say(f"warning: {in_clear}")

    def _content(self, setting: str) -> bytes | None:
        path = self.target.settings.get(setting)
        try:
            return Path(path).read_bytes() if path else None
        except OSError as error:
            raise FileError(f"cannot read the {setting} {path}: {error.strerror}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
