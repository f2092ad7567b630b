"""The login of an address, completed from the configuration of ssh."""

import os
from dataclasses import dataclass, replace

from ofa_profiler.connections.ssh.address import Destination, parse_destination, parse_jump
from ofa_profiler.connections.ssh.config import read_settings
from ofa_profiler.connections.ssh.expansion import expand_path, shell_command, tokens_of
from ofa_profiler.connections.ssh.host_key import supported_algorithms
from ofa_profiler.connections.ssh.openssh import ask_ssh, find_ssh
from ofa_profiler.connections.ssh.settings import Settings, first, is_yes, paths
from ofa_tables.errors import FileError, UsageError

PORT = 22
DEEPEST_JUMP = 16


@dataclass(frozen=True)
class Login:
    """Where and how to log in.

    ``alias`` is the host as the user named it; ``host`` and ``port`` are the destination. ``via`` is the login to jump
    through. ``keys`` are the identity files in order; files that do not exist are skipped at login. ``known_hosts`` are
    the user's files, then the system's.
    """

    host: str
    port: int
    user: str
    keys: tuple[str, ...] = ()
    via: "Login | None" = None
    proxy_command: str = ""
    known_hosts: tuple[str, ...] = ()
    alias: str = ""
    host_key_alias: str = ""
    revoked_host_keys: tuple[str, ...] = ()
    host_key_algorithms: tuple[str, ...] = ()
    unknown_host_key: str = "ask"  # StrictHostKeyChecking: yes, ask, accept-new or no
    hash_known_hosts: bool = False
    trust_localhost: bool = False
    certificates: tuple[str, ...] = ()
    identity_agent: str = ""
    only_these_keys: bool = False
    public_keys: bool = True

    def __str__(self) -> str:
        return str(Destination(self.host, self.user, self.port if self.port != PORT else None))

    @property
    def known_as(self) -> str:
        """The name in known_hosts."""
        return self.host_key_alias or (self.host if self.port == PORT else f"[{self.host}]:{self.port}")

    @property
    def existing_keys(self) -> tuple[str, ...]:
        return tuple(path for path in self.keys if os.path.exists(path))


def login_of(address: str) -> Login:
    """Complete ``[user@]host[:port]``, ``ssh://[user@]host[:port]``, or a ``Host`` of the configuration.

    Raises UsageError if it is not an address, FileError if the configuration cannot be used.
    """
    try:
        destination = parse_destination(address)
    except ValueError as error:
        raise UsageError(
            f"{address!r} is not an address ({error}); write [user@]host[:port], or a Host of ~/.ssh/config"
        ) from None
    return _complete(destination, ())


def read_configuration(destination: Destination, jumped: bool = False) -> Settings:
    """Ask the installed ssh for the settings of a host; without ssh, read the files. Raises FileError."""
    ssh = find_ssh()
    settings = ask_ssh(ssh, destination, jumped) if ssh else None
    return read_settings(destination) if settings is None else settings


def _complete(destination: Destination, behind: tuple[Destination, ...]) -> Login:
    """``behind`` are the destinations that are reached through this one."""
    if destination in behind or len(behind) > DEEPEST_JUMP:
        raise _circle(destination.host)
    settings = read_configuration(destination)
    login = _login(destination, settings)
    via = _gate(login, first(settings, "proxyjump", "none"), (*behind, destination))
    return replace(login, via=via, proxy_command="") if via else login


def _gate(login: Login, jump: str, behind: tuple[Destination, ...]) -> Login | None:
    """The last hop of a ProxyJump. Only the first hop follows its own ProxyJump, as in ssh."""
    try:
        hops = parse_jump(jump)
    except ValueError as error:
        raise FileError(f"~/.ssh/config: ProxyJump {jump} for {login.alias}: {error}; fix or remove it") from None
    if hops and _leads_to(hops[-1], login):
        raise _circle(login.alias)
    via: Login | None = None
    for hop in hops:
        if via is None:
            via = _complete(hop, behind)
        else:
            via = replace(_login(hop, read_configuration(hop, jumped=True)), via=via, proxy_command="")
    return via


def _leads_to(hop: Destination, login: Login) -> bool:
    """Whether ssh calls this a loop: it compares the hop as it is written."""
    return (hop.host, hop.port or PORT, hop.user or login.user) == (login.host, login.port, login.user)


def _circle(host: str) -> FileError:
    return FileError(f"~/.ssh/config: ProxyJump for {host} refers to itself; fix or remove it")


def _login(destination: Destination, settings: Settings) -> Login:
    if first(settings, "knownhostscommand", "none").lower() != "none":
        raise FileError(
            f"~/.ssh/config: KnownHostsCommand for {destination.host} is not supported; add KnownHostsCommand none to "
            "its Host block, and its key to known_hosts"
        )
    host, user, port = first(settings, "hostname"), first(settings, "user"), int(first(settings, "port"))
    tokens = tokens_of(destination.host, host, port, user, first(settings, "hostkeyalias"))
    keys, certificates = (
        tuple(expand_path(path, tokens, key) for path in paths(settings, key))
        for key in ("identityfile", "certificatefile")
    )
    command = first(settings, "proxycommand", "none")
    return Login(
        host,
        port,
        user,
        keys,
        proxy_command="" if command.lower() == "none" else shell_command(command, tokens),
        known_hosts=(*paths(settings, "userknownhostsfile"), *paths(settings, "globalknownhostsfile")),
        alias=destination.host,
        host_key_alias=first(settings, "hostkeyalias").lower(),
        revoked_host_keys=tuple(paths(settings, "revokedhostkeys")),
        host_key_algorithms=supported_algorithms(first(settings, "hostkeyalgorithms")),
        unknown_host_key=_unknown_host_key(first(settings, "stricthostkeychecking", "ask")),
        hash_known_hosts=is_yes(settings, "hashknownhosts", default=False),
        trust_localhost=is_yes(settings, "nohostauthenticationforlocalhost", default=False),
        certificates=certificates,
        identity_agent=first(settings, "identityagent"),
        only_these_keys=is_yes(settings, "identitiesonly", default=False),
        public_keys=is_yes(settings, "pubkeyauthentication", default=True),
    )


def _unknown_host_key(value: str) -> str:
    return {"true": "yes", "false": "no", "off": "no"}.get(value.lower(), value.lower())
