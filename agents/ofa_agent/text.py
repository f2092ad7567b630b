"""Text of other programs, hosts and devices, before a person reads it."""

MOST = 2000  # characters of a message


def one_line(text: str, most: int = MOST) -> str:
    """Return a text as one printable line. Control characters would let it change a terminal or forge messages."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= most else line[: most - 2] + " …"
