"""Patterns of ssh_config and known_hosts: ``*`` and ``?``, lists with commas, and ``!`` for negation."""

import re

LONGEST_IN_LIST = 1023  # OpenSSH: a longer pattern in a list never matches


def matches(text: str, pattern: str) -> bool:
    """Match one pattern, case-sensitively."""
    wild = {"*": ".*", "?": "."}
    expression = "".join(wild.get(character) or re.escape(character) for character in re.sub(r"\*+", "*", pattern))
    return re.fullmatch(expression, text, re.DOTALL) is not None


def matches_list(text: str, patterns: str) -> bool:
    """Match a list with commas: a negated pattern that matches excludes the text."""
    found = False
    for pattern in patterns.split(","):
        negated = pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        if len(pattern) > LONGEST_IN_LIST:
            return False
        if matches(text, pattern):
            if negated:
                return False
            found = True
    return found


def matches_host(host: str, patterns: str) -> bool:
    """Match a list, ignoring the case of ASCII letters."""
    return matches_list(lower(host), lower(patterns))


def lower(text: str) -> str:
    """Convert ASCII letters to lower case, as OpenSSH does."""
    return re.sub("[A-Z]+", lambda found: found[0].lower(), text)
