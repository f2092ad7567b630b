"""Connection ``tcp``: the token goes to another machine only through TLS, unless the user accepts it in clear."""

import pytest

from ofa_profiler.connections import connect
from ofa_profiler.targets.target import find_target
from ofa_tables.errors import UsageError

ELSEWHERE = "192.0.2.1:7000"  # reserved for documentation


@pytest.fixture
def opened(tmp_path):
    """Open a connection with a token, and return what it says."""
    token = tmp_path / "token"
    token.write_text("secret")

    def open_it(address, **settings):
        said = []
        connection = connect(find_target(f"tcp:{address}", {"token-file": str(token), **settings}))
        connection.say = said.append
        connection.open()
        connection.close()
        return said

    return open_it


@pytest.mark.parametrize("address", [ELSEWHERE, "board.example:7000", "[2001:db8::1]:7000"])
def test_the_token_is_not_sent_in_clear_to_another_machine(opened, address):
    with pytest.raises(
        UsageError, match=r"without --set tls-ca=FILE anyone on the way can read the token; .*plaintext=allow"
    ):
        opened(address)


@pytest.mark.parametrize("address", ["127.0.0.1:7000", "[::1]:7000", "localhost:7000"])
def test_the_token_may_stay_on_this_machine_in_clear(opened, address):
    assert opened(address) == []


def test_the_user_may_accept_a_token_in_clear(opened):
    (warning,) = opened(ELSEWHERE, plaintext="allow")
    assert warning.startswith(f"warning: tcp:{ELSEWHERE}: without")


def test_a_word_that_does_not_accept_it_is_refused(opened):
    with pytest.raises(UsageError, match="plaintext must be allow, not 'yes'"):
        opened(ELSEWHERE, plaintext="yes")
