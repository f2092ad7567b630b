"""SECURITY.md names the tests that show its promises; they exist."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_every_test_that_the_security_policy_names_exists():
    text = (REPOSITORY / "SECURITY.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    defined = {
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 40
    assert named <= defined
    for path in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (REPOSITORY / path).exists(), path
