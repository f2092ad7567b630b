"""Mutations of files, drawn from a seed: bytes, JSON values, and the words of text formats."""

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any

INTERESTING = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\xff" * 8,
    b"\0" * 8,
    b"PK\x03\x04",
    b"\n",
    b'"',
)

MOST = 2_000_000  # characters of mutated text
_WORD = re.compile(r"[\w.+-]+")

# Values that take the place of any JSON value.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1.5, -0.0, 1e308, -1e308, 5e-324),
    *(float("nan"), float("inf"), float("-inf")),
    *("", "x", "\0", "\ud800", "é" * 50, "9" * 5000, "tiny", "[", "\x1b[31m", "-1", "nan", "x" * 100_000),
    *([], {}, [[]], [None], {"": None}, {"r": True}, [1] * 1000, {"name": ["x"]}),
)

WORDS = (
    *("", "-1", "0", "1e999", "-1e308", "nan", ".inf", "1_0", "0x10", "1:30", "9" * 5000, "true", "null", "''", '"'),
    *("~", "é", "\ud7ff", "\0", "{", "}", "[", "]", "[" * 2000, "{a: " * 2000, "&a [*a, *a]", "*a", "<<", "? ", ": "),
    *("- ", "!!python/object/apply:os.system [x]", "---", "...", "%YAML 9.9", ",", ",,,,", "\r", "\n\n", "\t", "#"),
    *("a.b.c", "[[x]]", "1979-13-99", "'''", '"""', "x" * 70_000, "=", "2024-01-01"),
)


def change_bytes(random_: random.Random, content: bytes) -> bytes:
    """Flip, replace, cut, delete, duplicate or insert bytes, once to four times."""
    mutated = bytearray(content)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        if not mutated:
            break
        at = random_.randrange(len(mutated))
        if random_.random() < 0.3:
            at = random_.randrange(min(len(mutated), 400))
        until = min(len(mutated), at + random_.choice((1, 2, 8, 64, 1000, len(mutated))))
        kind = random_.randrange(7)
        if kind <= 1:
            mutated[at] ^= 1 << random_.randrange(8)
        elif kind == 2:
            value = random_.choice(INTERESTING)
            mutated[at : at + len(value)] = value
        elif kind == 3:
            del mutated[at:until]
        elif kind == 4:
            mutated[at:at] = mutated[at:until]
        elif kind == 5:
            mutated[at:at] = random_.choice(INTERESTING)
        else:
            mutated[at:until] = bytes(until - at)
    return bytes(mutated)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from places(inner, (*path, name))


def change_value(random_: random.Random, value: Any) -> Any:
    """Replace, delete, wrap or duplicate one node of a JSON value."""
    changed = copy.deepcopy(value)
    *path, last = random_.choice([place for place in places(changed) if place] or [(None,)])
    if last is None:
        return random_.choice(VALUES)
    parent = changed
    for name in path:
        parent = parent[name]
    kind = random_.randrange(6)
    if kind == 0:
        del parent[last]
    elif kind == 1:
        parent[last] = [parent[last]] * random_.choice((1, 2, 100))
    elif kind == 2 and isinstance(parent, dict):
        parent[random_.choice(("", "x", "name", "architecture", "blocks", "r", "space"))] = parent.pop(last)
    else:
        parent[last] = random_.choice(VALUES)
    return changed


def change_json(random_: random.Random, text: str) -> str:
    """Change a value, or the text of one; sometimes nest it deeply."""
    kind = random_.randrange(8)
    if kind == 0:
        return random_.choice(("[" * 10_000 + "]" * 10_000, '{"a":' * 5000 + "1" + "}" * 5000, "1" * 5000, "", "nul"))
    if kind == 1:
        return change_bytes(random_, text.encode()).decode(errors="replace")
    if kind == 2:
        return change_words(random_, text)
    return json.dumps(change_value(random_, json.loads(text)))[:MOST]


def change_words(random_: random.Random, text: str) -> str:
    """Replace, delete, duplicate or insert words and lines."""
    for _ in range(random_.choice((1, 1, 2, 4))):
        lines = text.splitlines(keepends=True)
        at = random_.randrange(len(lines)) if lines else 0
        kind = random_.randrange(7)
        if kind == 0 and lines:
            del lines[at]
            text = "".join(lines)
        elif kind == 1 and lines:
            lines[at] *= min(random_.choice((2, 3, 1000)), 1 + MOST // max(1, len(lines[at])))
            text = "".join(lines)
        elif kind == 2:
            start = random_.randrange(len(text) + 1)
            text = text[:start] + random_.choice(WORDS) + text[start:]
        else:
            word = _WORD.search(text, random_.randrange(len(text) + 1)) or _WORD.search(text)
            if word:
                text = text[: word.start()] + random_.choice(WORDS) + text[word.end() :]
        text = text[:MOST]
    return text
