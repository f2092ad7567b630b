"""Formatting of counts in messages."""

from ofa_tables.words import counted


def test_nouns_are_plural_except_for_one():
    assert [counted(count, "network") for count in (0, 1, 2, 2210)] == [
        "0 networks",
        "1 network",
        "2 networks",
        "2,210 networks",
    ]
    assert [counted(count, "entry", "entries") for count in (1, 2)] == ["1 entry", "2 entries"]
