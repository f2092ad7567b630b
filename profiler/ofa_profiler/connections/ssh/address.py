"""Addresses of SSH: ``[user@]host[:port]`` and ``ssh://[user@]host[:port]``, split as OpenSSH splits them."""

import re
import socket
from dataclasses import dataclass
from urllib.parse import unquote_plus

SCHEME = "ssh://"
MAX_PORT = 65535
# OpenSSH refuses these on its command line: a ProxyCommand or Match exec would pass them to a shell.
_BAD_IN_HOST = re.compile(r"""['`"$\\;&<>|(){}\s\x00-\x1f\x7f]""")
_BAD_IN_USER = re.compile(r"""['`";&<>|(){}\x00-\x1f\x7f]|\s-|\\$""")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")


@dataclass(frozen=True)
class Destination:
    """The parts of an address. ``user`` is empty and ``port`` is None if the address does not contain them."""

    host: str
    user: str = ""
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


def parse_destination(text: str) -> Destination:
    """Split an address. A host with two or more colons and no brackets is an IPv6 address. Raises ValueError."""
    if text.startswith(SCHEME):
        return _checked(_from_uri(text.removeprefix(SCHEME)))
    user, at, rest = text.rpartition("@")
    if rest.count(":") > 1 and not rest.startswith("[") and (user or not at):
        return _checked(Destination(rest, user))
    return _checked(_parse_hop(text))


def parse_jump(text: str) -> tuple[Destination, ...]:
    """Split the hops of a ProxyJump, the first hop first; no hops for ``none``. Raises ValueError."""
    hops = split_jump(text)
    for hop in hops:
        _checked(hop)
    return hops


def split_jump(text: str) -> tuple[Destination, ...]:
    """Split the hops, without checking their names. Raises ValueError where ssh refuses the whole file."""
    text = text.partition("#")[0].rstrip()
    if text.lower() == "none":
        return ()
    return tuple(_parse_hop(hop) for hop in text.split(","))


def parse_port(text: str) -> int:
    """Read a port number, or the name of a TCP service. Raises ValueError."""
    if re.fullmatch(r"\s*\+?\d+", text, re.ASCII):
        port = int(text)
    else:
        try:
            port = socket.getservbyname(text, "tcp")
        except (OSError, ValueError):
            raise ValueError(f"{text!r} is neither a port nor the name of a TCP service") from None
    if not 0 < port <= MAX_PORT:
        raise ValueError(f"port {text} is not between 1 and {MAX_PORT}")
    return port


def _parse_hop(text: str) -> Destination:
    if text.startswith(SCHEME):
        return _from_uri(text.removeprefix(SCHEME))
    user, at, rest = text.rpartition("@")
    if at and not user:
        raise ValueError("the user is empty")
    return _destination(rest, user)


def _from_uri(text: str) -> Destination:
    before, at, rest = text.partition("@")
    user = before.partition(";")[0] if at else ""
    rest = rest if at else text
    if at and (not user or _BAD_ESCAPE.search(user)):
        raise ValueError("the user is empty or has an invalid % escape")
    authority = rest.partition("/")[0]
    return _destination(authority, unquote_plus(user))


def _destination(text: str, user: str) -> Destination:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:/\[][^:/]*)(?:[:/](.*))?", text, re.DOTALL)
    host = found[1].strip("[]") if found else ""
    if found is None or not host:
        raise ValueError("it has no host")
    return Destination(host, user, parse_port(found[2]) if found[2] else None)


def _checked(destination: Destination) -> Destination:
    host, user = destination.host, destination.user
    if host.startswith("-") or _BAD_IN_HOST.search(host):
        raise ValueError(f"{host!r} is not a host name")
    if user.startswith("-") or _BAD_IN_USER.search(user):
        raise ValueError(f"{user!r} is not a user name")
    return destination
