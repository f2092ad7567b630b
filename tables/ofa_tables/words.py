"""Format counts in messages."""


def counted(count: int, noun: str, plural: str = "", space: str = " ") -> str:
    """Format a count and a noun: ``1 network``, ``2,210 networks``. ``plural`` is for irregular plurals."""
    return f"{count:,}{space}{noun if count == 1 else plural or noun + 's'}"
