"""Expand what ssh_config values may contain: ``~``, ``%`` tokens and ``${VARIABLE}``."""

import os
import pwd
import re
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path

from ofa_tables.errors import FileError

_TOKEN = re.compile(r"%(.?)|\$\{([^}]*)(\}?)", re.DOTALL)


def expand_path(path: str, tokens: Mapping[str, str], keyword: str) -> str:
    """Expand a path of the configuration. Raises FileError for an unset variable or an unknown token."""
    return expand(os.path.expanduser(path), tokens, keyword, variables=True)


def expand(text: str, tokens: Mapping[str, str], keyword: str, variables: bool = False) -> str:
    """Expand ``%`` tokens, and ``${VARIABLE}`` if ``variables``. Raises FileError."""

    def value(found: re.Match[str]) -> str:
        token, name, closed = found.groups()
        if name is None:
            if token == "%":
                return "%"
            if token not in tokens:
                raise FileError(f"~/.ssh/config: {keyword} {text}: %{token} is not supported there; write the value")
            return tokens[token]
        if not variables:
            return found[0]
        if not closed or name not in os.environ:
            raise FileError(f"~/.ssh/config: {keyword} {text}: the environment has no {name!r}; set it, or change it")
        return os.environ[name]

    return _TOKEN.sub(value, text)


def tokens_of(alias: str, host: str, port: int, user: str, host_key_alias: str) -> dict[str, str]:
    """Return the tokens of a connection. ``alias`` is the host as the user named it."""
    machine = socket.gethostname()
    return {
        "d": str(Path.home()),
        "h": host,
        "i": str(os.getuid()),
        "k": host_key_alias or alias,
        "L": machine.partition(".")[0],
        "l": machine,
        "n": alias,
        "p": str(port),
        "r": user,
        "u": local_user(),
    }


def local_user() -> str:
    """Return the name of this user, from the password database as ssh does."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get("USER") or str(os.getuid())


def shell_command(command: str, tokens: Mapping[str, str]) -> str:
    """Return the command line that runs a ProxyCommand in the user's shell."""
    expanded = expand(command, {key: tokens[key] for key in "hknpr"}, "ProxyCommand")
    return shlex.join([os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {expanded}"])
