"""Text of other programs, hosts and devices, before a person reads it."""

from typing import Dict, Iterable, List

MOST = 2000  # characters of a message


def one_line(text: str, most: int = MOST) -> str:
    """Return a text as one printable line. Control characters would let it change a terminal or forge messages."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= most else line[: most - 2] + " …"


def numbered(names: Iterable[str]) -> List[str]:
    """Return the names with a number behind each one that occurred before: ``a``, ``b``, ``a#2``."""
    seen: Dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else "%s#%d" % (name, seen[name]))
    return result
