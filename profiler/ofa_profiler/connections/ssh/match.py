"""Evaluate a ``Match`` line without ssh.

A criterion that only ssh can evaluate is refused if the answer depends on it.
"""

from dataclasses import dataclass

from ofa_profiler.connections.ssh.patterns import matches_host, matches_list
from ofa_profiler.connections.ssh.words import next_token

ONLY_SSH = ("exec", "localnetwork", "tagged", "version", "command", "sessiontype")


@dataclass(frozen=True)
class Facts:
    """What criteria are compared with. ``original`` is the host as given; ``final`` is true in the second pass."""

    host: str
    original: str
    user: str
    local_user: str
    final: bool


@dataclass(frozen=True)
class Verdict:
    """Whether the block applies. ``asks_final``: the configuration must be read a second time."""

    applies: bool
    asks_final: bool = False


def evaluate(line: str, facts: Facts, only_syntax: bool = False) -> Verdict:
    """Evaluate the criteria of a line; with ``only_syntax`` the block never applies.

    Raises ValueError with the reason if ssh refuses the line, or if only ssh can evaluate it.
    """
    applies, asks_final, count = not only_syntax, False, 0
    undecided = ""
    while line:
        word, line = next_token(line)
        if not word or word.startswith("#"):
            break
        negated, name = word.startswith("!"), word.lower().removeprefix("!")
        if name == "all":
            if count > 1 or (line and not line.startswith("#")):
                raise ValueError("all cannot be combined with other criteria")
            return _decide(applies and not negated, asks_final, undecided)
        count += 1
        if name in ("canonical", "final"):
            if name == "final" and negated:
                raise ValueError("versions of OpenSSH differ about Match !final; remove it, or install ssh")
            asks_final |= name == "final"
            applies &= facts.final != negated
            continue
        value, line = next_token(line)
        if not value or value.startswith("#"):
            raise ValueError(f"Match {name} has no value")
        if name in ONLY_SSH:
            undecided = undecided or name
            continue
        applies &= _matches(name, value, facts) != negated
    if count == 0:
        raise ValueError("Match has no criteria")
    return _decide(applies, asks_final, undecided)


def _decide(applies: bool, asks_final: bool, undecided: str) -> Verdict:
    if applies and undecided:
        raise ValueError(f"only ssh can evaluate Match {undecided}; install the OpenSSH client, or remove this line")
    return Verdict(applies, asks_final)


def _matches(name: str, value: str, facts: Facts) -> bool:
    if name == "host":
        return matches_host(facts.host, value)
    if name == "originalhost":
        return matches_host(facts.original, value)
    if name == "user":
        return matches_list(facts.user, value)
    if name == "localuser":
        return matches_list(facts.local_user, value)
    raise ValueError(
        f"Match {name} is not a known criterion; if it is a new one, install the OpenSSH client, or remove this line"
    )
