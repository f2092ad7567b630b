"""Counts in messages."""


def counted(count: int, noun: str, plural: str = "", space: str = " ") -> str:
    """``1 network``, ``2,210 networks``; ``plural`` is for nouns that take more than an s."""
    return f"{count:,}{space}{noun if count == 1 else plural or noun + 's'}"
