"""The settings of a host, asked from the installed ``ssh`` with ``ssh -G``."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ofa_profiler.connections.ssh.address import Destination
from ofa_profiler.connections.ssh.relocation import relocated_config
from ofa_profiler.connections.ssh.settings import USER_KNOWN_HOSTS, Settings
from ofa_tables.errors import FileError

TIMEOUT_S = 30.0  # Match exec and CanonicalizeHostname may take some seconds
# These are printed on one line, without quotes.
LISTS = ("userknownhostsfile", "globalknownhostsfile", "revokedhostkeys")
# ssh before OpenSSH 8.5 prints these as they are written.
EXPANDED = ("userknownhostsfile", "revokedhostkeys", "identityagent")
_WITHOUT_G = re.compile(r"(unknown|illegal|invalid|unrecognized) option.*\bG\b|^usage: dbclient", re.IGNORECASE)
_NOISE = ("Pseudo-terminal will not be allocated",)


def find_ssh() -> str | None:
    """Return the path of the installed ``ssh`` if it can answer for this user."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return None  # ssh refuses users who are not in the password database
    return shutil.which("ssh")


def ask_ssh(ssh: str, destination: Destination, jumped: bool = False) -> Settings | None:
    """Return what ``ssh -G`` prints, or None if this ssh has no ``-G``. Raises FileError.

    ``jumped``: the way to the host is known, so its own ProxyJump does not count.
    """
    with _own_config() as (options, moved):
        words = [ssh, "-G", *options]
        words += ["-o", "ProxyJump=none"] if jumped else []
        words += ["-l", destination.user] if destination.user else []
        words += ["-p", str(destination.port)] if destination.port else []
        code, out, said = _run([*words, "--", destination.host], destination)
    if code == 0 and "hostname " in out:
        settings = _settings(out)
        if settings["userknownhostsfile"] == [_at(_home_of_ssh(), path) for path in USER_KNOWN_HOSTS]:
            settings["userknownhostsfile"] = [_at(Path.home(), path) for path in USER_KNOWN_HOSTS]
        return settings
    if _WITHOUT_G.search(said) or "Dropbear" in said:
        return None
    for copy, original in moved.items():
        said = said.replace(copy, original)
    raise FileError(_complaint(said, destination, code))


@contextmanager
def _own_config() -> Iterator[tuple[list[str], dict[str, str]]]:
    """Options for a home directory that differs from the one where ssh would look."""
    if os.path.realpath(Path.home()) == os.path.realpath(_home_of_ssh()):
        yield [], {}
        return
    with tempfile.TemporaryDirectory(prefix="ofa-ssh-") as folder:
        config, moved = relocated_config(Path.home(), Path(folder))
        yield ["-F", str(config)], moved


def _home_of_ssh() -> Path:
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def _at(home: Path, path: str) -> str:
    return str(home / path.removeprefix("~/"))


def _run(words: list[str], destination: Destination) -> tuple[int, str, str]:
    """Run ssh; a program that Match exec leaves running cannot block, because the output goes to files."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=said, start_new_session=True)
        except OSError as error:
            raise FileError(f"cannot run {words[0]}: {error.strerror}; fix the installation of OpenSSH") from None
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise FileError(
                f"ssh -G {destination.host} gave no answer within {TIMEOUT_S:g} s; check Match exec and "
                "CanonicalizeHostname in ~/.ssh/config"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        said.seek(0)
        return code, os.fsdecode(out.read()), os.fsdecode(said.read())


def _settings(out: str) -> Settings:
    settings: Settings = {}
    for line in out.splitlines():
        key, _, value = line.partition(" ")
        settings.setdefault(key.lower(), []).append(value)
    for key in LISTS:
        settings[key] = [path for line in settings.get(key, []) for path in _paths(line.split(" "))]
    for key in EXPANDED:
        settings[key] = [os.path.expanduser(path) for path in settings.get(key, [])]
    return settings


def _paths(words: list[str]) -> list[str]:
    """Join the words of a path with blanks: the longest run of words that names a file is one path."""

    def is_file(length: int) -> bool:
        return os.path.exists(os.path.expanduser(" ".join(words[:length])))

    paths = []
    while words:
        length = next(filter(is_file, range(len(words), 1, -1)), 1)
        paths.append(" ".join(words[:length]))
        words = words[length:]
    return [path for path in paths if path]


def _complaint(said: str, destination: Destination, code: int) -> str:
    lines = [line.strip() for line in said.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_NOISE) and ": terminating, " not in line]
    loop = next((line for line in lines if "jumphost loop" in line), None)
    if loop:
        return f"~/.ssh/config: ProxyJump for {destination.host} refers to itself; fix or remove it"
    reason = "; ".join(line.rstrip(".") for line in lines[:2]) or f"ssh -G ended with status {code}"
    what = "run chmod 600 on that file" if "permissions" in reason else "fix that line"
    return f"ssh cannot read its configuration for {destination.host}: {reason}; {what}"
