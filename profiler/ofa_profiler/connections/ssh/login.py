"""The login of an address, completed from the user's ``~/.ssh/config``."""

import getpass
import glob
import re
from dataclasses import dataclass
from pathlib import Path

import paramiko

from ofa_tables.errors import FileError, UsageError

PORT = 22
DEEPEST_INCLUDE = 16
_ADDRESS = re.compile(r"^(?:(?P<user>[^@\s]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:\s]+)(?::(?P<port>\d+))?$")


@dataclass(frozen=True)
class Login:
    """``host`` and ``port`` of the destination; ``via`` is the login to jump through; ``keys`` come from the config."""

    host: str
    port: int
    user: str
    keys: tuple[str, ...] = ()
    via: "Login | None" = None
    proxy_command: str = ""
    known_hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != PORT else "")

    @property
    def known_as(self) -> str:
        """The name in known_hosts."""
        return self.host if self.port == PORT else f"[{self.host}]:{self.port}"


def login_of(address: str, depth: int = 0) -> Login:
    """Complete ``[user@]host[:port]``, or a ``Host`` of the config. Raises UsageError, FileError."""
    found = _ADDRESS.match(address)
    if not found:
        raise UsageError(f"{address!r} is not an address; write [user@]host[:port], or a Host of ~/.ssh/config")
    if depth > DEEPEST_INCLUDE:
        raise FileError(f"~/.ssh/config: ProxyJump for {address} refers to itself; fix or remove it")
    alias = found["host"].strip("[]")
    try:
        options = paramiko.SSHConfig.from_text(_config(Path.home() / ".ssh" / "config")).lookup(alias)
    except (paramiko.ssh_exception.ConfigParseError, paramiko.SSHException, ImportError) as error:
        raise FileError(f"~/.ssh/config cannot be read for {alias}: {error}") from None
    jump = options.get("proxyjump", "none")
    command = options.get("proxycommand", "none")
    via = None
    if jump != "none":
        for hop in jump.split(","):  # each one through the preceding one
            this = login_of(hop.strip(), depth + 1)
            via = this if via is None else Login(**{**vars(this), "via": via})
    return Login(
        host=options.get("hostname", alias),
        port=int(found["port"] or options.get("port", PORT)),
        user=found["user"] or options.get("user") or getpass.getuser(),
        keys=tuple(str(Path(path).expanduser()) for path in options.get("identityfile", [])),
        via=via,
        proxy_command="" if command == "none" or via else command,
        known_hosts=tuple(
            str(Path(path).expanduser())
            for path in (*options.get("userknownhostsfile", "~/.ssh/known_hosts").split(), "/etc/ssh/ssh_known_hosts")
        ),
    )


def _config(path: Path, depth: int = 0) -> str:
    """The text of the file with its includes inserted, since paramiko ignores Include."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from None
    lines = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] and words[0].lower() == "include" and depth < DEEPEST_INCLUDE:
            for pattern in words[1:]:
                pattern = str(Path(pattern).expanduser())
                names = sorted(glob.glob(str(Path.home() / ".ssh" / pattern)))
                lines += [_config(Path(name), depth + 1) for name in names]
        else:
            lines.append(line)
    return "\n".join(lines)
