"""ofa-profile and the real ssh give the same answer about a host key, by logging in to a real sshd."""

import base64
import re
import subprocess
import sys

import pytest

from ofa_profiler.connections.ssh.link import Link
from ofa_profiler.connections.ssh.login import login_of
from ofa_tables.errors import DeviceError

# Without ssh only the configuration is read in another way, which test_ssh_config.py compares.
WITHOUT_SSH = pytest.param("without ssh", marks=pytest.mark.slow)
pytestmark = pytest.mark.parametrize("home", ["ssh", WITHOUT_SSH], indirect=True)

DAMAGED = "ssh-ed25519 AAAAC3NzaC1lZDI1!!!!IMSy/sMMTCyl77Wrrqq"
CUT_OFF = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMSy/sMMTCyl77WrrqqBb5oACf7L"
LATIN = b"b\xfcro ssh-rsa AAAA # \xe9\xe8\n"

# {name} is [127.0.0.1]:PORT. {ed25519}, {rsa} and {ecdsa} are keys of the server; {other_ed25519} is another key.
KNOWN_HOSTS = {
    "empty": "",
    "the key": "{name} {ed25519}\n",
    "the key with a comment": "  {name}\t{ed25519} root@board # here\n",
    "without a line end": "{name} {ed25519}",
    "comments and blank lines": "# hosts\n\n   \n\t# more\n{name} {ed25519}\n",
    "another key": "{name} {other_ed25519}\n",
    "another key, then the key": "{name} {other_ed25519}\n{name} {ed25519}\n",
    "several names": "tx2,{name},10.0.0.5 {ed25519}\n",
    "a pattern": "[127.0.0.*]:* {ed25519}\n",
    "a pattern for one character": "[127.0.0.?]:{port} {ed25519}\n",
    "a negated name": "*,!{name} {ed25519}\n",
    "a key of another type": "{name} {rsa}\n",
    "a wrong key of another type": "{name} {other_ecdsa}\n",
    "a wrong key of a type that the server prefers": "{name} {other_ed25519}\n{name} {rsa}\n",
    "all keys": "{name} {ed25519}\n{name} {rsa}\n{name} {ecdsa}\n",
    "the name without the port": "127.0.0.1 {ed25519}\n",
    "another key without the port": "127.0.0.1 {other_ed25519}\n",
    "another key with the port, the key without": "{name} {other_ed25519}\n127.0.0.1 {ed25519}\n",
    "an rsa key without the port": "127.0.0.1 {rsa}\n",
    "broken base64 first": "{name} {damaged}\n{name} {ed25519}\n",
    "broken base64 only": "{name} {damaged}\n",
    "broken base64 for another host": "tx2 {damaged}\n{name} {ed25519}\n",
    "a key that is cut off": "{name} {cut_off}\n",
    "a key of unknown type": "{name} ssh-new AAAAB3NzaC1\n{name} {ed25519}\n",
    "a key labelled with another type": "{name} ssh-rsa {ed25519_base64}\n",
    "an rsa key labelled with its signature": "{name} rsa-sha2-512 {rsa_base64}\n",
    "a short rsa key": "{name} {short_rsa}\n",
    "a dsa key": "{name} ssh-dss AAAAB3NzaC1kc3MAAAAA\n{name} {ed25519}\n",
    "no key": "{name}\n{name} \n{name} # none\n",
    "a type without a key": "{name} ssh-ed25519\n{name} ssh-ed25519   \n",
    "numbers of protocol 1": "{name} 1024 35 12345678901234567890\n",
    "revoked": "@revoked {name} {ed25519}\n",
    "known and revoked": "{name} {ed25519}\n@revoked * {ed25519}\n",
    "another key revoked": "{name} {ed25519}\n@revoked * {other_ed25519}\n",
    "revoked for another host": "@revoked tx2 {ed25519}\n{name} {ed25519}\n",
    "revoked, another key known": "@revoked * {ed25519}\n{name} {other_ed25519}\n",
    "revoked without the port": "@revoked 127.0.0.1 {ed25519}\n",
    "revoked with tabs": "@revoked\t{name}\t{ed25519}\n{name} {ed25519}\n",
    "revoked after a tab": "@revoked\t{name} {ed25519}\n{name} {ed25519}\n",
    "another type revoked": "@revoked * {rsa}\n{name} {ed25519}\n",
    "revoked but broken": "@revoked * {damaged}\n{name} {ed25519}\n",
    "an authority": "@cert-authority * {other_ed25519}\n",
    "an authority with the key of the server": "@cert-authority * {ed25519}\n",
    "an authority, and the key": "@cert-authority * {other_ed25519}\n{name} {ed25519}\n",
    "an unknown marker": "@trusted {name} {ed25519}\n",
    "an unknown marker first": "@trusted {name} {other_ed25519}\n{name} {ed25519}\n",
    "two markers": "@revoked @cert-authority {name} {ed25519}\n{name} {ed25519}\n",
    "a marker only": "@revoked\n{name} {ed25519}\n",
    "a hashed name": "{hashed} {ed25519}\n",
    "a hashed name with another key": "{hashed} {other_ed25519}\n",
    "a hashed name that is damaged": "|1|AAAA|BBBB {other_ed25519}\n|2|x {other_ed25519}\n{hashed} {ed25519}\n",
    "two hashed names": "{hashed},{hashed} {ed25519}\n",
    "windows lines": "{name} {ed25519}\r\n",
    "windows lines with comments": "# x\r\n\r\n{name} {other_ed25519} x\r\n",
    "a byte order mark": "\ufeff{name} {ed25519}\n",
    "a byte order mark on the second key": "{name} {ed25519}\n\ufeff{name} {other_ed25519}\n",
    "a null character": "{name} {ed25519}\0 x\n\0\n",
    "a null character in the name": "{name}\0 {ed25519}\n",
    "a very long line": "tx2 ssh-rsa " + "A" * 100_000 + "\n{name} {ed25519}\n",
    "upper case": "[127.0.0.1]:{port} {ed25519}\n".upper()
    .replace("{PORT}", "{port}")
    .replace("{ED25519}", "{ed25519}"),
}
BYTES = {
    "latin-1": lambda text: LATIN + text,
    "utf-16": lambda text: text.decode().encode("utf-16"),
    "binary": lambda text: bytes(range(256)) * 20 + b"\n" + text,
}
RELAY = """
import os, socket, sys, threading

far = socket.create_connection((sys.argv[1], int(sys.argv[2])))

def send():
    while data := os.read(0, 65536):
        far.sendall(data)
    far.shutdown(socket.SHUT_WR)

threading.Thread(target=send, daemon=True).start()
while data := far.recv(65536):
    os.write(1, data)
"""
ANSWERS = {
    "REVOKED HOST KEY DETECTED": "revoked",
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "changed",
    "host key is known for": "unknown",
    "Host key verification failed": "unknown",
    "is revoked in": "revoked",
    "has changed; if": "changed",
    "is not known yet": "unknown",
}


def answer_in(text):
    return next((answer for words, answer in ANSWERS.items() if words in text), text)


def filled(text, server, folder):
    values = dict(server.keys) | {f"{kind}_base64": key.split()[1] for kind, key in server.keys.items()}
    values |= {"name": server.name, "port": str(server.port), "damaged": DAMAGED, "cut_off": CUT_OFF}
    values["short_rsa"] = short_rsa()
    if "{hashed}" in text:
        (folder / "plain").write_text(f"{server.name} {server.keys['ed25519']}\n")
        subprocess.run(["/usr/bin/ssh-keygen", "-H", "-f", folder / "plain"], check=True, capture_output=True)
        values["hashed"] = (folder / "plain").read_text().split()[0]
    return re.sub(r"{(\w+)}", lambda found: values[found[1]], text)


def short_rsa():
    """A public key of 768 bits."""
    parts = (b"ssh-rsa", b"\1\0\1", b"\0" + (1 << 767 | 1).to_bytes(96, "big"))
    return "ssh-rsa " + base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode()


def configure(home, server, key, *lines):
    text = f"Host board\n  HostName 127.0.0.1\n  Port {server.port}\n  User root\n  IdentityFile {key}\n"
    home.write(text + "".join(f"  {line}\n" for line in lines))


def both(home, *options):
    """The answer of the real ssh, and ours with its message."""
    done = home.ssh("-oBatchMode=yes", *options, "board", "true")
    theirs = "known" if done.returncode == 0 else answer_in(done.stderr)
    try:
        with Link(login_of("board"), "jetson"):
            return theirs, "known", ""
    except DeviceError as error:
        message = str(error)
    return theirs, answer_in(message) if "\n" not in message else message, message


CASES = [(name, "all") for name in KNOWN_HOSTS]
CASES += [(name, "ed25519") for name, text in KNOWN_HOSTS.items() if re.search("rsa|ecdsa", text)]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_known_hosts_file_is_read_as_ssh_reads_it(home, servers, key, name, kind):
    server = servers[kind]
    configure(home, server, key)
    home.write(filled(KNOWN_HOSTS[name], server, home.path).encode(), "known_hosts")
    theirs, our, message = both(home)
    assert our == theirs, message


@pytest.mark.parametrize("encoding", BYTES)
@pytest.mark.parametrize("name", ["the key", "another key", "revoked"])
def test_a_known_hosts_file_in_another_encoding(home, servers, key, name, encoding):
    server = servers["all"]
    configure(home, server, key)
    home.write(BYTES[encoding](filled(KNOWN_HOSTS[name], server, home.path).encode()), "known_hosts")
    theirs, our, message = both(home)
    assert our == theirs, message


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("HostKeyAlias Tegra", "tegra {ed25519}\n"),
        ("HostKeyAlias Tegra", "{name} {ed25519}\n"),
        ("HostKeyAlias tegra", "tegra {other_ed25519}\n"),
        ("UserKnownHostsFile none", "{name} {ed25519}\n"),
        ("UserKnownHostsFile ~/.ssh/missing ~/.ssh/known_hosts", "{name} {ed25519}\n"),
        ("UserKnownHostsFile ~/.ssh ~/.ssh/known_hosts", "{name} {ed25519}\n"),
        ("GlobalKnownHostsFile HOME/.ssh/known_hosts", "{name} {ed25519}\n"),
        ("UserKnownHostsFile none\n  GlobalKnownHostsFile HOME/.ssh/known_hosts", "{name} {ed25519}\n"),
        ("HostKeyAlgorithms rsa-sha2-512", "{name} {ed25519}\n"),
        ("HostKeyAlgorithms rsa-sha2-512", "{name} {rsa}\n"),
        ("HostKeyAlgorithms -ssh-ed25519*", "{name} {ecdsa}\n"),
        ("HostKeyAlgorithms ^rsa-sha2-256", "{name} {rsa}\n"),
        ("NoHostAuthenticationForLocalhost yes", "{name} {other_ed25519}\n"),
        ("NoHostAuthenticationForLocalhost yes\n  HostKeyAlias tegra", "tegra {other_ed25519}\n"),
        ("RevokedHostKeys HOME/.ssh/known_hosts", "# none\n{ed25519}\n"),
        ("RevokedHostKeys HOME/.ssh/known_hosts", "{other_ed25519}\n"),
        ("StrictHostKeyChecking yes", ""),
        ("StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null", ""),
        ("StrictHostKeyChecking accept-new", "{name} {other_ed25519}\n"),
        ("StrictHostKeyChecking accept-new", "@revoked * {ed25519}\n"),
        ("ProxyCommand HOME/bin/relay %h %p\n  HostKeyAlias tegra", "tegra {ed25519}\n"),
    ],
)
def test_an_option_about_host_keys(home, servers, key, option, text):
    server = servers["all"]
    configure(home, server, key, option)
    relay = home.write(f"#!{sys.executable}\n{RELAY}", "../bin/relay")
    relay.chmod(0o755)
    home.write(filled(text, server, home.path).encode(), "known_hosts")
    done = home.ssh("-oBatchMode=yes", "board", "true")
    theirs, our, message = both(home)
    if "revoked by file" in done.stderr:
        theirs = "revoked"
    assert our == theirs, message


CERTIFICATES = {
    "its authority": ("", "@cert-authority {name} {authority}\n"),
    "its authority without the port": ("", "@cert-authority 127.0.0.1 {authority}\n"),
    "its authority without the port, another with it": (
        "",
        "@cert-authority 127.0.0.1 {authority}\n@cert-authority {name} {other_rsa}\n",
    ),
    "another authority": ("", "@cert-authority * {other_ed25519}\n"),
    "another authority, and the key": ("", "@cert-authority * {other_ed25519}\n{name} {ed25519}\n"),
    "its authority, and another key": ("", "@cert-authority * {authority}\n{name} {other_ed25519}\n"),
    "an authority that is revoked": ("", "@cert-authority * {authority}\n@revoked * {authority}\n"),
    "a certified key that is revoked": ("", "@cert-authority * {authority}\n@revoked * {ed25519}\n"),
    "the authority as a plain key": ("", "{name} {authority}\n"),
    "an alias that is certified": ("HostKeyAlias Tegra", "@cert-authority tegra {authority}\n"),
    "an alias that is not certified": ("HostKeyAlias xavier", "@cert-authority xavier {authority}\n"),
    "an expired certificate": ("HostKeyAlgorithms rsa-sha2-512-*,rsa-sha2-512", "@cert-authority * {authority}\n"),
    "an expired certificate of a known key": (
        "HostKeyAlgorithms rsa-sha2-512-*,rsa-sha2-512",
        "@cert-authority * {authority}\n{name} {rsa}\n",
    ),
    "a certificate for another host": ("HostKeyAlgorithms ecdsa-*", "@cert-authority * {authority}\n"),
    "plain keys only": ("HostKeyAlgorithms ssh-ed25519", "@cert-authority * {authority}\n"),
    "a known key of another type": ("", "@cert-authority * {authority}\n{name} {rsa}\n"),
    "an authority in RevokedHostKeys": ("RevokedHostKeys HOME/.ssh/revoked", "@cert-authority * {authority}\n"),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_a_certificate_of_a_host_key(home, servers, key, name):
    option, text = CERTIFICATES[name]
    server = servers["certified"]
    configure(home, server, key, *filter(None, [option]))
    home.write(filled(text, server, home.path).encode(), "known_hosts")
    home.write(server.keys["authority"] + "\n", "revoked")
    done = home.ssh("-oBatchMode=yes", "board", "true")
    theirs, our, message = both(home)
    assert our == ("revoked" if "revoked by file" in done.stderr else theirs), message


def test_accept_new_adds_the_key_once(home, servers, key):
    configure(home, servers["all"], key, "StrictHostKeyChecking accept-new", "HashKnownHosts yes")
    for _ in range(2):
        with Link(login_of("board"), "jetson"):
            pass
    lines = (home.path / ".ssh" / "known_hosts").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("|1|")
    assert both(home, "-oStrictHostKeyChecking=yes")[:2] == ("known", "known")


def test_a_changed_key_is_refused_although_ssh_would_only_switch_off_passwords_and_tunnels(home, servers, key):
    server = servers["all"]
    configure(home, server, key, "StrictHostKeyChecking no")
    home.write(f"{server.name} {server.keys['other_ed25519']}\n", "known_hosts")
    assert both(home)[:2] == ("known", "changed")


def test_an_unknown_key_is_reported_with_the_lines_that_were_skipped(home, servers, key):
    server = servers["all"]
    configure(home, server, key)
    path = home.write(f"# x\n{server.name} {DAMAGED}\n@trusted * {DAMAGED}\n", "known_hosts")
    message = both(home)[2]
    assert f"{path} line 2 is skipped: its key is not base64" in message
    assert f"{path} line 3 is skipped: '@trusted' is not a marker" in message
    assert f"ssh-keyscan -p {server.port} -t ed25519 127.0.0.1 >> {path}" in message


def test_a_changed_and_a_revoked_key_are_reported_with_file_and_line(home, servers, key):
    server = servers["all"]
    configure(home, server, key)
    path = home.write(f"\n{server.name} {server.keys['other_ed25519']}\n", "known_hosts")
    message = both(home)[2]
    assert f"remove the old key with ssh-keygen -R '{server.name}'" in message
    assert f"{path} line 2 has another key" in message
    home.write(f"{server.name} {server.keys['ed25519']}\n@revoked * {server.keys['ed25519']}\n", "known_hosts")
    assert f"is revoked in {path} line 2" in both(home)[2]
