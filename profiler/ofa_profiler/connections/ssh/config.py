"""The settings of a host, read from ssh_config files without ssh: the first value of a keyword counts.

The result has the form of ``ssh -G``. What this reader cannot decide, it refuses with file and line.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ofa_profiler.connections.ssh import settings as names
from ofa_profiler.connections.ssh.address import Destination, parse_port, split_jump
from ofa_profiler.connections.ssh.expansion import expand, expand_path, local_user, tokens_of
from ofa_profiler.connections.ssh.keywords import ALIASES, COMMANDS, IGNORED, KNOWN, problem
from ofa_profiler.connections.ssh.match import Facts, evaluate
from ofa_profiler.connections.ssh.patterns import lower, matches, matches_list
from ofa_profiler.connections.ssh.relocation import include_paths
from ofa_profiler.connections.ssh.settings import Settings, first
from ofa_profiler.connections.ssh.words import SPACE, split_keyword, split_words
from ofa_tables.errors import FileError

DEEPEST_INCLUDE = 16
ONCE_LISTS = ("userknownhostsfile", "globalknownhostsfile", "revokedhostkeys")
GROWING_LISTS = ("identityfile", "certificatefile")


def read_settings(destination: Destination) -> Settings:
    """Read the user's file and the system's file for a host. Raises FileError."""
    given: Settings = {}
    if destination.user:
        given["user"] = [destination.user]
    if destination.port:
        given["port"] = [str(destination.port)]
    reading = _Reading(destination.host, destination.host, given)
    reading.read_files()
    host = _host(reading.settings, destination.host)
    if reading.wants_final:
        again = _Reading(host, destination.host, {**reading.settings, "hostname": [host]}, final=True)
        again.read_files()
        reading = again
    if not destination.user and set("%$") & set(first(reading.settings, "user")):
        raise FileError("~/.ssh/config: versions of OpenSSH differ about tokens in User; write the name")
    return _completed(reading.settings, destination.host, host)


@dataclass
class _Reading:
    """One pass over the files. ``host`` is what Host patterns are compared with; ``active`` is the current block."""

    host: str
    original: str
    settings: Settings
    final: bool = False
    wants_final: bool = False
    active: bool = True
    base: Path = field(default_factory=Path)

    def read_files(self) -> None:
        user, system = Path.home() / ".ssh" / "config", Path(names.SYSTEM_CONFIG)
        for path, by_user in ((user, True), (system, False)):
            self.active, self.base = True, path.parent
            self._read(path, only_syntax=False, guarded=by_user, depth=0)

    def _read(self, path: Path, only_syntax: bool, guarded: bool, depth: int) -> None:
        if depth > DEEPEST_INCLUDE:
            raise FileError(f"{path}: more than {DEEPEST_INCLUDE} nested Includes; does the file include itself?")
        try:
            text = os.fsdecode(path.read_bytes())
            status = path.stat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror}; make it readable") from None
        if guarded and (status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022):
            raise FileError(f"{path} can be written by others, which OpenSSH refuses; run chmod go-w on it")
        for number, line in enumerate(text.split("\n"), 1):
            try:
                self._line(line, only_syntax, depth)
            except ValueError as error:
                advice = "" if "; " in str(error) else "; fix or remove this line"
                raise FileError(f"{path} line {number}: {error}{advice}") from None

    def _line(self, line: str, only_syntax: bool, depth: int) -> None:
        keyword, rest = split_keyword(line)
        if not keyword:
            return
        if matches_list(lower(keyword), lower(first(self.settings, "ignoreunknown"))) and keyword not in KNOWN:
            return
        if keyword not in KNOWN:
            raise ValueError(f"unknown keyword {keyword!r}")
        if keyword in IGNORED:
            return
        words = split_words(rest)
        if keyword == "host":
            self._host_block(words, only_syntax)
        elif keyword == "match":
            self._match_block(rest, only_syntax)
        elif keyword == "include":
            self._include(words, only_syntax, depth)
        else:
            self._set(ALIASES.get(keyword, keyword), rest, words)

    def _host_block(self, words: list[str], only_syntax: bool) -> None:
        if not words or not all(words):
            raise ValueError("Host has an empty pattern")
        self.active = False
        for word in words:
            if only_syntax:
                return
            if matches(self.host, word.removeprefix("!")):
                self.active = not word.startswith("!")
                if not self.active:
                    return

    def _match_block(self, rest: str, only_syntax: bool) -> None:
        host = self.host if self.final else _host_name(self.settings, self.host)
        user = first(self.settings, "user", local_user())
        verdict = evaluate(rest, Facts(host, self.original, user, local_user(), self.final), only_syntax)
        self.wants_final |= verdict.asks_final
        self.active = verdict.applies and not only_syntax

    def _include(self, words: list[str], only_syntax: bool, depth: int) -> None:
        if not words or not all(words):
            raise ValueError("Include has no path")
        active = self.active
        for word in words:
            if "${" in word or "%" in word:
                raise ValueError("versions of OpenSSH differ about variables in Include; write the path")
            for path in include_paths(word, self.base, Path.home()):
                self._read(path, only_syntax or not active, guarded=True, depth=depth + 1)
                self.active = active  # a block in the included file ends with it

    def _set(self, keyword: str, rest: str, words: list[str]) -> None:
        if keyword in COMMANDS:
            self._set_command(keyword, rest.lstrip(SPACE + "="))
            return
        wrong = problem(keyword, words)
        if wrong:
            raise ValueError(f"{keyword}: {wrong}")
        values = [str(parse_port(words[0]))] if keyword == "port" else words
        if not self.active:
            return
        if keyword in GROWING_LISTS:
            known = self.settings.setdefault(keyword, [])
            known += [value for value in values if value not in known]
        elif keyword not in self.settings:
            self.settings[keyword] = values if keyword in ONCE_LISTS else values[:1]

    def _set_command(self, keyword: str, value: str) -> None:
        if not value:
            raise ValueError(f"{keyword}: the argument is missing")
        if keyword == "proxyjump":
            self._set_jump(value)
        elif self.active:
            self.settings.setdefault(keyword, [value])

    def _set_jump(self, value: str) -> None:
        try:
            hops = split_jump(value)  # names are checked if the jump is used
        except ValueError as error:
            raise ValueError(f"ProxyJump {value}: {error}") from None
        if self.active and not self.settings.keys() & {"proxyjump", "proxycommand"}:
            self.settings["proxyjump"] = [value]
            if hops:
                self.settings["proxycommand"] = ["none"]  # a later ProxyCommand does not count


def _host(settings: Settings, original: str) -> str:
    return lower(_host_name(settings, original))


def _host_name(settings: Settings, original: str) -> str:
    return expand(first(settings, "hostname", "%h"), {"h": original}, "HostName")


def _completed(settings: Settings, alias: str, host: str) -> Settings:
    """Add the defaults, and expand what ``ssh -G`` prints expanded."""
    if first(settings, "canonicalizehostname", "no").lower() not in ("no", "false", "none"):
        raise FileError(
            f"~/.ssh/config: only ssh can apply CanonicalizeHostname for {alias}; install the OpenSSH client, or set "
            "CanonicalizeHostname no"
        )
    user = first(settings, "user", local_user())
    port, key_alias = first(settings, "port", "22"), lower(first(settings, "hostkeyalias"))
    tokens = tokens_of(alias, host, int(port), user, key_alias)
    completed = {
        "identityfile": names.IDENTITY_FILES,
        "globalknownhostsfile": names.GLOBAL_KNOWN_HOSTS,
        "userknownhostsfile": names.USER_KNOWN_HOSTS,
        **settings,
        "hostname": [host],
        "user": [user],
        "port": [port],
    }
    if key_alias:
        completed["hostkeyalias"] = [key_alias]
    for key in ("userknownhostsfile", "identityagent", "revokedhostkeys"):
        completed[key] = [expand_path(path, tokens, key) for path in completed.get(key, [])]
    return completed
