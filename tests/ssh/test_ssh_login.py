"""Logins to a real sshd with the keys, jumps and agents that a configuration names, beside the real ssh."""

import contextlib
import os
import signal
import subprocess

import pytest

from ofa_profiler.connections.ssh import connecting
from ofa_profiler.connections.ssh.link import Link
from ofa_profiler.connections.ssh.login import login_of
from ofa_tables.errors import DeviceError

WITHOUT_SSH = pytest.param("without ssh", marks=pytest.mark.slow)
pytestmark = pytest.mark.parametrize("home", ["ssh", WITHOUT_SSH], indirect=True)

ACCEPTED = "accepted"
REFUSED = "refused the login"

# Options of the host; whether the login is accepted; words in the message if not. {key} is accepted, {wrong} is not.
LOGINS = {
    "the key": ("IdentityFile {key}", ACCEPTED),
    "the key after others": ("IdentityFile ~/.ssh/missing\nIdentityFile {wrong}\nIdentityFile {key}", ACCEPTED),
    "quoted with a blank": ('IdentityFile "{key_with_blank}"', ACCEPTED),
    "relative to the home": ("IdentityFile %d/.ssh/lab_key", ACCEPTED),
    "no keys": ("IdentityFile none", REFUSED),
    "a wrong key": ("IdentityFile {wrong}", REFUSED),
    "a file that is not a key": ("IdentityFile ~/.ssh/config\nIdentityFile {key}", ACCEPTED),
    "a key with a passphrase": ("IdentityFile {locked}", "has a passphrase; add it to the agent with ssh-add"),
    "a key with a passphrase, then the key": ("IdentityFile {locked}\nIdentityFile {key}", ACCEPTED),
    "public keys switched off": ("PubkeyAuthentication no\nIdentityFile {key}", REFUSED),
    "a wrong user": ("User nobody-there\nIdentityFile {key}", "refused the login of nobody-there"),
}
# With an agent that holds the key; {public} is its public key.
AGENT_LOGINS = {
    "a key of the agent": ("IdentityFile none", ACCEPTED),
    "only the keys of the configuration": ("IdentitiesOnly yes\nIdentityFile {wrong}", REFUSED),
    "a key of the configuration in the agent": ("IdentitiesOnly yes\nIdentityFile {public}", ACCEPTED),
    "no agent": ("IdentityAgent none\nIdentityFile none", REFUSED),
    "an agent by its path": ("IdentityAgent {agent}\nIdentityFile none", ACCEPTED),
    "an agent by its variable": ("IdentityAgent $LAB_AGENT\nIdentityFile none", ACCEPTED),
    "an agent that is not there": ("IdentityAgent ~/.ssh/no-agent\nIdentityFile none", REFUSED),
}


@pytest.fixture
def board(home, servers, key):
    """Write a configuration for the host ``board`` with some options."""
    server = servers["all"]
    home.write(f"{server.name} {server.keys['ed25519']}\n", "known_hosts")
    make = ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519"]
    subprocess.run([*make, "-N", "", "-f", home.path / ".ssh" / "wrong"], check=True)
    subprocess.run([*make, "-N", "secret", "-f", home.path / ".ssh" / "locked"], check=True)
    places = {name: home.path / ".ssh" / name for name in ("wrong", "locked")}
    places |= {"key": key, "key_with_blank": home.write(key.read_bytes(), "lab key"), "agent": home.path / "agent"}
    public = subprocess.run(["/usr/bin/ssh-keygen", "-y", "-f", key], check=True, capture_output=True).stdout
    places["public"] = home.write(public, "only_public.pub")

    def write(options="", before=""):
        lines = [f"  {line}" for line in options.format(**places).splitlines()]
        lines += ["  HostName 127.0.0.1", f"  Port {server.port}", "  User root"]
        home.write("\n".join([before, "Host board", *lines, ""]))

    return write


@pytest.fixture
def agent(home, key, monkeypatch):
    """An ssh-agent that holds the key."""
    path = home.path / "agent"
    started = subprocess.run(["/usr/bin/ssh-agent", "-a", path, "-s"], check=True, capture_output=True, text=True)
    for name in ("SSH_AUTH_SOCK", "LAB_AGENT"):
        monkeypatch.setenv(name, str(path))
        home.environment[name] = str(path)
    subprocess.run(["/usr/bin/ssh-add", "-q", key], check=True)
    yield path
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(started.stdout.split("SSH_AGENT_PID=")[1].split(";")[0]), signal.SIGTERM)


def log_in(address="board", password=None):
    """``accepted`` after a command has run there; otherwise the message."""
    try:
        with Link(login_of(address), "jetson", password) as link:
            assert link.run("echo $((6 * 7))").output == "42"
    except DeviceError as error:
        return str(error)
    return ACCEPTED


def compare(home, expected):
    done = home.ssh("-oBatchMode=yes", "board", "true")
    assert (done.returncode == 0) == (expected == ACCEPTED), done.stderr
    assert expected in log_in()


@pytest.mark.parametrize("name", LOGINS)
def test_a_login_with_the_keys_of_the_configuration(home, board, name):
    options, expected = LOGINS[name]
    board(options)
    compare(home, expected)


@pytest.mark.parametrize("name", AGENT_LOGINS)
def test_a_login_with_an_agent(home, board, agent, name):
    options, expected = AGENT_LOGINS[name]
    board(options)
    compare(home, expected)


def test_a_passphrase_opens_a_key(home, board, key):
    subprocess.run(["/usr/bin/ssh-keygen", "-q", "-p", "-N", "secret", "-f", key], check=True)
    board("IdentityFile {key}")
    assert "has a passphrase" in log_in()
    assert log_in(password="secret") == ACCEPTED
    assert "refused the login" in log_in(password="wrong")


def test_a_certificate_of_a_user(home, board, servers, tmp_path):
    """The server accepts what its authority has signed."""
    folder = servers["all"].folder
    user = tmp_path / "user"
    subprocess.run(["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", user], check=True)
    sign = ["/usr/bin/ssh-keygen", "-q", "-s", folder / "authority", "-I", "me", "-n", "root"]
    subprocess.run([*sign, f"{user}.pub"], check=True)
    line = f"cert-authority {servers['all'].keys['authority']}\n"
    if line not in (folder / "authorized_keys").read_text():
        with (folder / "authorized_keys").open("a") as file:
            file.write(line)
    board(f"IdentityFile {user}")
    compare(home, ACCEPTED)
    certificate = (tmp_path / "user-cert.pub").rename(tmp_path / "elsewhere.pub")
    compare(home, REFUSED)
    board(f"IdentityFile {{wrong}}\nIdentityFile {user}\nCertificateFile {certificate}")
    compare(home, ACCEPTED)


@pytest.mark.parametrize("jump", ["gate", "ssh://root@gate", "gate,inner", "root@127.0.0.1:{port}"])
def test_a_login_through_jumps(home, board, servers, jump):
    port = servers["ed25519"].port
    gates = "Host gate inner 127.0.0.1\n  HostName 127.0.0.1\n  User root\n  IdentityFile ~/.ssh/lab_key\n"
    board(f"IdentityFile {{key}}\nProxyJump {jump.format(port=port)}", f"{gates}  Port {port}\n")
    compare(home, "is not known yet")  # the key of the gate
    with (home.path / ".ssh" / "known_hosts").open("a") as file:
        file.write(f"{servers['ed25519'].name} {servers['ed25519'].keys['ed25519']}\n")
    compare(home, ACCEPTED)


def test_a_board_that_the_gate_cannot_reach(home, board, servers):
    server = servers["all"]
    board("IdentityFile {key}")
    gated = f"Host far\n  HostName 127.0.0.1\n  Port 9\n  HostKeyAlias x\n  ProxyJump root@127.0.0.1:{server.port}\n"
    home.write(gated + "Host *\n  IdentityFile ~/.ssh/lab_key\n")
    message = log_in("far")
    assert "jetson: 127.0.0.1 cannot connect to 127.0.0.1 port 9" in message


def test_a_proxy_command_that_fails(home, board, monkeypatch):
    monkeypatch.setattr(connecting, "CONNECT_S", 2.0)
    board("ProxyCommand echo no way to %h >&2")
    message = log_in()
    assert "jetson: the ProxyCommand for board leads to no SSH server" in message
    assert "exec echo no way to 127.0.0.1" in message


def test_a_jump_with_an_unknown_key_is_named(home, board, servers):
    board("IdentityFile {key}\nProxyJump gate", f"Host gate\n  HostName 127.0.0.1\n  Port {servers['ed25519'].port}\n")
    assert f"ssh-keyscan -p {servers['ed25519'].port} -t ed25519 127.0.0.1 >> " in log_in()
