"""ofa-profile and the real ``ssh -G`` read the same host from a configuration.

Without ssh, our own reader gives the same answer, or refuses with a message that names the reason.
"""

import os
import pwd
import re
import socket

import pytest

from ofa_profiler.connections.ssh.login import login_of
from ofa_tables.errors import FileError, UsageError

TX2 = "Host tx2\n  HostName 10.0.0.5\n  User nvidia\n"

# Name → the text of ~/.ssh/config (HOME is replaced), or texts by file name; then the addresses to compare.
CONFIGS = {
    "empty": ("", "tx2", "nvidia@10.0.0.5:2200", "10.0.0.5"),
    "host": (TX2 + "  Port 2200\n  IdentityFile ~/.ssh/lab\n", "tx2", "root@tx2:22", "other"),
    "equals signs": ("Host=tx2\nHostName = 10.0.0.5\nPort=2200\n\tUser\t=\tnvidia\n", "tx2", "other"),
    "quotes": ('Host "tx2"\n  HostName "10.0.0.5"\n  IdentityFile "HOME/my keys/lab"\n  User \'nv idia\'\n', "tx2"),
    "escapes": ('Host tx2\n  IdentityFile HOME/my\\ keys/lab\n  IdentityFile "a\\"b"\n', "tx2"),
    "comments": ("# all\nHost tx2 # mine\n  User nvidia # me\n  Port 2200 #x\n   # end\n", "tx2"),
    "upper case keywords": ("HOST tx2\n  HOSTNAME 10.0.0.5\n  uSeR nvidia\n", "tx2", "TX2"),
    "upper case names": ("Host Tx2\n  HostName Board.EXAMPLE\n  User nvidia\n", "Tx2", "tx2"),
    "patterns": ("Host *.lab !gate.lab\n  User nvidia\nHost tx?\n  Port 2222\n", "a.lab", "gate.lab", "tx2", "tx22"),
    "negated only": ("Host !gate\n  User nvidia\nHost * !gate\n  Port 2\n", "gate", "tx2"),
    "the first value counts": (TX2 + "Host *\n  User other\n  Port 2222\n", "tx2", "else"),
    "identity files accumulate": (
        "IdentityFile ~/.ssh/one\nHost tx2\n  IdentityFile ~/.ssh/two\n  IdentityFile ~/.ssh/one\n",
        *("tx2", "other"),
    ),
    "no identity files": ("Host tx2\n  IdentityFile none\nHost b\n  IdentityFile none\n  IdentityFile k\n", "tx2", "b"),
    "tokens": (
        "Host tx2\n  HostName %h.lab\n  User me\n  IdentityFile ~/%r-%h-%p-%n-%u-%i-%L-%l%%\n  IdentityFile %d/k\n"
        "  IdentityFile ${COLOR}/k\n  UserKnownHostsFile %d/a ~/b-%h\n",
        *("tx2", "tx2:77"),
    ),
    "home of another user": ("IdentityFile ~daemon/k\nUserKnownHostsFile ~daemon/h\n", "tx2"),
    "known_hosts files": (
        "Host tx2\n  UserKnownHostsFile ~/a HOME/b\n  GlobalKnownHostsFile /etc/x /etc/y\n"
        "Host none\n  UserKnownHostsFile none\n  GlobalKnownHostsFile none\n",
        *("tx2", "none", "other"),
    ),
    "known_hosts with blanks": (
        {"config": 'UserKnownHostsFile ~/a "HOME/.ssh/two words" HOME/b\n', "two words": ""},
        "tx2",
    ),
    "include keeps its scope": (
        {"config": f"Include lab\nHost tx2\n  Port 2200\n{TX2}", "lab": "Host xavier\n  User x\n"},
        *("tx2", "xavier", "other"),
    ),
    "what follows an include": (
        {"config": "Host tx2\n  Include lab\n  User nvidia\nHost other\n  User o\n", "lab": "Host xavier\n  Port 7\n"},
        *("tx2", "xavier", "other"),
    ),
    "include in a block that does not match": (
        {"config": "Host tx2\n  Include lab\n", "lab": "User inner\nHost *\n  Port 2222\n"},
        *("tx2", "other"),
    ),
    "quoted includes": (
        {"config": 'Include "my lab" "HOME/.ssh/other lab"\n', "my lab": TX2, "other lab": "Host b\n  User x\n"},
        *("tx2", "b"),
    ),
    "include with an equals sign": (
        {"config": "Include=lab\ninclude = ~/.ssh/more\n", "lab": TX2, "more": "Port 7\n"},
        "tx2",
    ),
    "include by pattern": (
        {
            "config": "Include conf.d/*.conf\n",
            "conf.d/2.conf": "Port 2\n",
            "conf.d/1.conf": "Port 1\n",
            "conf.d/0": "Port 9\n",
        },
        "tx2",
    ),
    "includes in includes": ({"config": "Include a\n", "a": "Host tx2\n  Include b\n  Port 1\n", "b": TX2}, "tx2", "x"),
    "include of nothing": ("Include nothing-here\nInclude none/*.conf\n" + TX2, "tx2"),
    "include of itself": ("Include config\n", "tx2"),
    "include open to others": ({"config": "Include lab\n", "lab": TX2}, "tx2"),
    "jump": ("Host tx2\n  ProxyJump anna@gate:2222\nHost gate\n  HostName 192.168.0.1\n", "tx2"),
    "jumps": (
        "Host tx2\n  ProxyJump anna@outer,inner:2222,[fd00::1]:22\nHost inner\n  HostName 192.168.0.1\n  ProxyJump x\n"
        "Host outer\n  ProxyJump first\nHost first\n  User f\n",
        "tx2",
    ),
    "jump by address": (
        "Host tx2\n  ProxyJump ssh://anna@gate:2222\nHost b\n  ProxyJump ssh://10.0.0.1,ssh://c/\n",
        "tx2",
        "b",
    ),
    "jump by service": ("Host tx2\n  ProxyJump gate:ssh\nHost b\n  ProxyJump gate:\n", "tx2", "b"),
    "no jump": ("Host tx2\n  ProxyJump none\nHost *\n  ProxyJump gate\nHost gate\n  ProxyJump none\n", "tx2"),
    "gates excluded": ("Host * !gate\n  ProxyJump gate\n", "tx2", "gate"),
    "jump with a comment": ("Host tx2\n  ProxyJump gate # the lab\n", "tx2"),
    "quoted jump": ('Host tx2\n  ProxyJump "gate"\n', "tx2"),
    "jump to itself": ("Host tx2\n  ProxyJump tx2\n", "tx2"),
    "jumps in a circle": ("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n", "a"),
    "proxy command": ("Host tx2\n  ProxyCommand nc -X 5 %h %p\nHost b\n  ProxyCommand none\n", "tx2", "b"),
    "proxy command before a jump": ("Host tx2\n  ProxyCommand nc %h %p\n  ProxyJump gate\n", "tx2"),
    "jump before a proxy command": ("Host tx2\n  ProxyJump none\n  ProxyCommand nc %h %p\n", "tx2"),
    "host key alias": ("Host tx2\n  HostName 10.0.0.5\n  Port 2200\n  HostKeyAlias Tegra\n", "tx2"),
    "service as port": ("Host tx2\n  Port ssh\nHost b\n  Port http\n", "tx2", "b", "c:ssh"),
    "bad port": ("Host tx2\n  Port no-such-service\n", "tx2", "other"),
    "port out of range": ("Port 65536\n", "tx2"),
    "match all": ("Host b\n  User b\nMatch all\n  User everyone\n", "tx2", "b"),
    "match host": ("Match host tx2,*.lab\n  User nvidia\nMatch host=b\n  User b\n", "tx2", "x.lab", "b", "other"),
    "match the host name": (
        TX2 + "Match host 10.*\n  Port 2200\nMatch originalhost tx2\n  HostKeyAlias t\n",
        "tx2",
        "10.1.1.1",
    ),
    "match with quotes": ('Match host "tx2,b" user "nvidia"\n  Port 7\n', "nvidia@tx2", "tx2", "nvidia@b"),
    "match negated": ("Match !host tx2\n  User other\nMatch host *,!b\n  Port 3\n", "tx2", "b", "c"),
    "match user": (TX2 + "Match user nvidia\n  Port 2200\nMatch localuser root\n  HostKeyAlias l\n", "tx2", "me@tx2"),
    "match final": ("Match final host 10.*\n  Port 2200\n" + TX2, "tx2", "other"),
    "match final all": ("Match final all\n  User last\nHost tx2\n  User nvidia\n", "tx2", "other"),
    "host in the second pass": ("Match final\n  Compression no\nHost 10.*\n  Port 7\n" + TX2, "tx2"),
    "match canonical": ("Match canonical\n  User c\n" + TX2, "tx2"),
    "match not final": ("Match !final\n  Port 9\n" + TX2, "tx2"),
    "match exec": (
        'Match host tx2 exec "test -d HOME/.ssh"\n  User nvidia\nMatch exec false\n  Port 9\n',
        "tx2",
        "other",
    ),
    "match exec after a criterion that is false": ("Match host b exec true\n  Port 9\n" + TX2, "tx2"),
    "match localnetwork": ("Match localnetwork 10.99.0.0/16\n  Port 9\n" + TX2, "tx2"),
    "match tagged": ("Match tagged lab\n  Port 9\n" + TX2, "tx2"),
    "match what does not exist": ("Match weather rain\n  Port 9\n" + TX2, "tx2"),
    "match without criteria": ("Match\n  Port 9\n" + TX2, "tx2"),
    "match all and more": ("Match host a user b all\n  Port 9\n", "tx2"),
    "unknown keyword": (TX2 + "  UseKeychain yes\n", "tx2", "other"),
    "unknown keyword ignored": ("IgnoreUnknown UseKey*,x\n" + TX2 + "  UseKeychain yes\n", "tx2"),
    "bad flag": ("Host other\n  IdentitiesOnly maybe\n", "tx2"),
    "too many arguments": ("Host tx2\n  User me you\n", "tx2"),
    "no argument": ("Host tx2\n  User\n", "tx2"),
    "open quote": ('Host tx2\n  User "me\n', "tx2"),
    "windows lines": (TX2.replace("\n", "\r\n"), "tx2"),
    "latin-1": (b"# Gruss\xdf\nHost tx2\n  User nvidi\xe4\n", "tx2"),
    "byte order mark": (b"\xef\xbb\xbfHost tx2\n  Port 9\n", "tx2"),
    "ipv6": ("Host fd00::5\n  User nvidia\nHost b\n  HostName fd00::6\n", "fd00::5", "[fd00::5]:22", "b"),
    "addresses with a scheme": (TX2, "ssh://tx2", "ssh://me@tx2:2200", "ssh://b/", "ssh://a%40b@tx2:ssh"),
    "host name from the environment": ("Host tx2\n  HostName %h%%x\n", "tx2"),
    "canonical names": ("CanonicalizeHostname yes\nCanonicalDomains invalid\n" + TX2, "tx2"),
    "known_hosts command": ("KnownHostsCommand /bin/true\n" + TX2, "tx2"),
    "a jump over the host itself": ("Host b\n  ProxyJump me@gate:22,b\n", "b:2222"),
    "a jump that does not count": ("ProxyJump gate\nHost tx2\n  ProxyJump x;y\nHost gate\n  ProxyJump none\n", "tx2"),
    "known_hosts in the second pass": (
        "Match final\n  UserKnownHostsFile none\nHost b\n  UserKnownHostsFile ~/x\n",
        "tx2",
        "b",
    ),
    "none beside others": ("Host other\n  UserKnownHostsFile none ~/x\n", "tx2"),
    "two equals signs": ("User==me\nUserKnownHostsFile==~/x\n", "tx2"),
    "form feed": ("\f\nUser me\n", "tx2"),
    "form feed at the end": ("User me \f\n", "tx2"),
    "ignored keywords": ("Protocol 2\nCipher blowfish\nRSAAuthentication yes\n" + TX2, "tx2"),
    "strict checking": ("StrictHostKeyChecking accept-new\nIdentitiesOnly yes\n" + TX2, "tx2"),
}
CASES = [(name, address) for name, (_, *addresses) in CONFIGS.items() for address in addresses]


def truth(home, *words):
    """What ``ssh -G`` says, with the hops of its jump from nearest to farthest; None if it refuses."""
    done = home.ssh("-G", *words)
    if done.returncode:
        return None
    said = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key, []).append(value)
    keys = [_expanded(home, path, said) for path in said["identityfile"] if path != "none"]
    hops = _hops(home, said.get("proxyjump", ["none"])[0])
    if hops is None:
        return None
    return {
        **{key: said[key][0] for key in ("user", "hostname", "port")},
        "hostkeyalias": said.get("hostkeyalias", [""])[0],
        "jump": hops,
        "keys": keys,
        "known_hosts": [part for key in ("user", "global") for part in _files(said[f"{key}knownhostsfile"][0])],
        "proxy": "" if "none" in said.get("proxycommand", ["none"]) else "command",
    }


def _files(line):
    """The words of the line; only one file of the tests has a blank."""
    return [part.replace("\0", " ") for part in line.replace("two words", "two\0words").split(" ") if part != "none"]


def _expanded(home, path, said):
    host, user, port = said["hostname"][0], said["user"][0], said["port"][0]
    values = {
        "r": user,
        "h": host,
        "p": port,
        "n": said["host"][0],
        "u": "root",
        "i": "0",
        "%": "%",
        "d": str(home.path),
    }
    values |= {"L": socket.gethostname().partition(".")[0], "l": socket.gethostname()}
    path = re.sub("^~(?=/)", str(home.path), path).replace("${COLOR}", "blue")
    path = re.sub("^~daemon(?=/)", pwd.getpwnam("daemon").pw_dir, path)
    return re.sub("%(.)", lambda found: values[found[1]], path)


def _hops(home, jump):
    if jump == "none":
        return []
    before, _, last = jump.rpartition(",")
    user, host, port = re.fullmatch(r"(?:(.*)@)?\[?([^\]]*?)\]?(?::(\d+))?", last).groups()
    options = [*(("-l", user) if user else ()), *(("-p", port) if port else ()), *(("-J", before) if before else ())]
    gate = truth(home, *options, "--", host)
    return gate and [*gate["jump"], (gate["user"], gate["hostname"], int(gate["port"]))]


def ours(address):
    login = login_of(address)
    hops, via = [], login.via
    while via:
        hops.insert(0, (via.user, via.host, via.port))
        via = via.via
    return {
        "user": login.user,
        "hostname": login.host,
        "port": str(login.port),
        "hostkeyalias": login.host_key_alias,
        "jump": hops,
        "keys": list(login.keys),
        "known_hosts": list(login.known_hosts),
        "proxy": "command" if login.proxy_command else "",
    }


def as_ssh_takes_it(address):
    """Our ``host:port`` in the words of ssh."""
    found = re.fullmatch(r"(?!ssh://)([^:]+|.*\[.*\]):(\w+)", address)
    return ("-p", found[2], "--", found[1].replace("[", "").replace("]", "")) if found else ("--", address)


# What our own reader, or all of ofa-profile, refuses although ssh answers; the words are in the message.
REFUSED_WITHOUT_SSH = {
    "match exec": "only ssh can evaluate Match exec; install the OpenSSH client",
    "match not final": "Match !final",
    "canonical names": "CanonicalizeHostname",
}
REFUSED_ALWAYS = {
    "known_hosts command": "KnownHostsCommand for tx2 is not supported",
    "quoted jump": "ProxyJump",
    "jumps in a circle": "ProxyJump for a refers to itself",
}


@pytest.mark.parametrize(("name", "address"), CASES, ids=[f"{name}: {address}" for name, address in CASES])
def test_a_configuration_is_read_as_ssh_reads_it(home, name, address):
    files = CONFIGS[name][0]
    for file, text in (files if isinstance(files, dict) else {"config": files}).items():
        path = home.write(text, file)
        if name.endswith("open to others") and file != "config":
            path.chmod(0o666)
    refused = REFUSED_ALWAYS.get(name) or (REFUSED_WITHOUT_SSH.get(name) if home.reader == "without ssh" else None)
    expected = None if name in REFUSED_ALWAYS else truth(home, *as_ssh_takes_it(address))
    try:
        answer = ours(address)
    except FileError as error:
        message = str(error)
        assert expected is None or refused, f"ssh answers: {expected}; we refuse: {message}"
        assert (refused or "") in message
        assert "\n" not in message
        assert re.search(r"\.ssh/|/etc/ssh|tx2|other", message), message
    else:
        assert expected is not None, f"ssh refuses; we answer: {answer}"
        assert answer == expected


@pytest.mark.parametrize("address", ["-oProxyCommand=true", "me@-x", "-l@tx2", "a b", "x;true", "$(true)", "", "me@"])
def test_an_address_that_ssh_could_take_for_an_option_or_a_command_is_refused(home, address):
    with pytest.raises(UsageError, match="is not an address"):
        login_of(address)


@pytest.mark.parametrize(
    "address", ["ssh://", "ssh://@tx2", "ssh://tx2:port", "tx2:no-such-service", "tx2:0", "tx2:65536"]
)
def test_an_address_without_a_host_or_with_a_wrong_port_is_refused(home, address):
    with pytest.raises(UsageError, match="is not an address"):
        login_of(address)


def test_a_message_names_file_and_line(home):
    home.write(TX2 + "  Colour blue\n")
    with pytest.raises(FileError, match=rf"{home.path}/\.ssh/config:? line 4: .*colour"):
        login_of("tx2")


def test_a_command_that_match_exec_leaves_running_does_not_block(home):
    if home.reader == "without ssh":
        pytest.skip("our own reader runs no commands")
    home.write('Match exec "sleep 60 >&2 &"\n' + TX2)
    assert login_of("tx2").user == "nvidia"


def test_ssh_that_does_not_answer_is_ended(home, monkeypatch):
    if home.reader == "without ssh":
        pytest.skip("our own reader runs no commands")
    monkeypatch.setattr("ofa_profiler.connections.ssh.openssh.TIMEOUT_S", 0.5)
    home.write('Match exec "sleep 60"\n' + TX2)
    with pytest.raises(FileError, match=r"ssh -G tx2 gave no answer within 0.5 s; check Match exec"):
        login_of("tx2")


def test_a_program_called_ssh_without_g_is_not_asked(home, monkeypatch):
    programs = home.path / "dropbear"
    programs.mkdir()
    (programs / "ssh").write_text("#!/bin/sh\necho 'Dropbear SSH client v2022.83' >&2\nexit 1\n")
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}:/bin:/usr/bin")
    home.write(TX2)
    assert login_of("tx2").host == "10.0.0.5"
