"""Connections to targets. One file each, registered here.

Other distributions add theirs through the entry point group ``ofa_profiler.connections``: a function from a Target to
a Connection.
"""

from collections.abc import Callable

from ofa_profiler.connections.connection import Connection
from ofa_profiler.connections.local import LocalConnection
from ofa_profiler.connections.tcp import TcpConnection
from ofa_profiler.targets.target import Target
from ofa_tables import plugins
from ofa_tables.errors import UsageError
from ofa_tables.store.measurement import SIMULATED

__all__ = ["Connection", "connect"]


def _ssh(target: Target) -> Connection:
    from ofa_profiler.connections.ssh import SshConnection  # paramiko is slow to import

    return SshConnection(target)


def _adb(target: Target) -> Connection:
    from ofa_profiler.connections.adb import AdbConnection  # so is adbutils

    return AdbConnection(target)


def _simulated(target: Target) -> Connection:
    raise UsageError(
        f"{target.name} is simulated: there is no device to reach; ofa-profile --target {target.name} computes its "
        "table"
    )


_BUILT_IN: dict[str, Callable[[Target], Connection]] = {
    "local": LocalConnection,
    "tcp": TcpConnection,
    "ssh": _ssh,
    "adb": _adb,
    SIMULATED: _simulated,
}


def connect(target: Target) -> Connection:
    """The connection to a target. Nothing is contacted before its agent is requested."""
    connection: Connection = plugins.find("connection", "ofa_profiler.connections", target.connection, _BUILT_IN)(
        target
    )
    return connection
