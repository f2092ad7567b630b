"""A home with an SSH configuration, the real ssh as the judge of it, and a real sshd to log in to."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ofa_profiler.connections.ssh import openssh

SSHD = "/usr/sbin/sshd"
KEY_TYPES = ("ed25519", "rsa", "ecdsa")
READERS = ("ssh", "ssh with another HOME", "without ssh")


def _missing():
    for program in ("ssh", "ssh-keygen", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if os.getuid() != 0:
        return "giving ssh another home directory requires root"
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True).stderr.strip()


@dataclass
class Home:
    """A home directory. ``ssh`` runs the real program with this home; ``reader`` says how ofa-profile reads files."""

    path: Path
    reader: str
    environment: dict

    def write(self, text, name="config"):
        path = self.path / ".ssh" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.replace("HOME", str(self.path)).encode())
        path.chmod(0o600)
        return path

    def ssh(self, *words, timeout_s=30):
        return subprocess.run(
            [self.path / "bin" / "ssh", *map(str, words)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            env=self.environment,
        )


@pytest.fixture(params=READERS)
def home(request, tmp_path, monkeypatch):
    """A home of the real ssh, for each way of reading the configuration."""
    missing = _missing()
    if missing:
        pytest.skip(missing)
    path = tmp_path / "home"
    (path / ".ssh").mkdir(parents=True)
    (path / "bin").mkdir()
    fields = list(pwd.getpwuid(os.getuid()))
    fields[5] = str(path)
    users = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith(f"{fields[0]}:")]
    (path / "passwd").write_text("\n".join([":".join(map(str, fields)), *users]) + "\n")
    script = path / "bin" / "ssh"
    script.write_text(
        '#!/bin/sh\nexec unshare --mount sh -c \'mount --bind "$0" /etc/passwd; exec "$@"\' '
        f'{path}/passwd {shutil.which("ssh")} "$@"\n'
    )
    script.chmod(0o755)
    for name in ("SSH_AUTH_SOCK", "SSH_ASKPASS"):
        monkeypatch.delenv(name, raising=False)
    environment = {**os.environ, "HOME": str(path), "COLOR": "blue"}
    monkeypatch.setenv("COLOR", "blue")
    monkeypatch.setenv("HOME", str(path))
    if request.param == "ssh":
        moved = pwd.struct_passwd(fields)
        monkeypatch.setattr(openssh.pwd, "getpwuid", lambda uid: moved)
        monkeypatch.setenv("PATH", f"{path}/bin:{os.environ['PATH']}")
    elif request.param == "without ssh":
        monkeypatch.setenv("PATH", str(path / "nothing"))
    return Home(path, request.param, environment)


@dataclass
class Server:
    """A real sshd on a port of 127.0.0.1. ``keys`` has its host keys, other keys, and the key of its authority."""

    port: int
    keys: dict
    folder: Path

    @property
    def name(self):
        return f"[127.0.0.1]:{self.port}"


def _make_key(path, kind="ed25519"):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


def _certify(folder, key, *options):
    words = ["ssh-keygen", "-q", "-s", folder / "authority", "-I", "board", "-h", *options, folder / f"{key}.pub"]
    subprocess.run(words, check=True)
    return f"HostCertificate {folder}/{key}-cert.pub"


def _start(folder, types, certified):
    keys = {kind: _make_key(folder / kind, kind) for kind in KEY_TYPES}
    keys |= {f"other_{kind}": _make_key(folder / f"other_{kind}", kind) for kind in KEY_TYPES}
    keys["authority"] = _make_key(folder / "authority")
    lines = [f"HostKey {folder}/{kind}" for kind in types]
    if certified:
        lines.append(_certify(folder, "ed25519", "-n", "127.0.0.1,tegra"))
        lines.append(_certify(folder, "rsa", "-n", "127.0.0.1", "-V", "20200101:20200201"))
        lines.append(_certify(folder, "ecdsa", "-n", "elsewhere"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines += [f"Port {port}", "ListenAddress 127.0.0.1", f"AuthorizedKeysFile {folder}/authorized_keys"]
    lines += ["PidFile none", "UsePAM no", "PermitRootLogin yes", "StrictModes no", "MaxStartups 100"]
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    (folder / "authorized_keys").touch()
    log = (folder / "log").open("wb")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdout=log, stderr=log)
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process, Server(port, keys, folder)
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Three servers: with a host key of each type, with only ed25519, and with certificates of its keys."""
    for program in (SSHD, "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.getuid() != 0:
        pytest.skip("this sshd logs root in")
    Path("/run/sshd").mkdir(exist_ok=True)
    kinds = {"all": (KEY_TYPES, False), "ed25519": (("ed25519",), False), "certified": (KEY_TYPES, True)}
    started = [_start(tmp_path_factory.mktemp("sshd"), *kind) for kind in kinds.values()]
    yield {name: server for name, (_, server) in zip(kinds, started, strict=True)}
    for process, _ in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def lab_key(servers, tmp_path_factory):
    """A key that the servers accept."""
    path = tmp_path_factory.mktemp("keys") / "lab_key"
    public = _make_key(path)
    for server in servers.values():
        with (server.folder / "authorized_keys").open("a") as file:
            file.write(public + "\n")
    return path


@pytest.fixture
def key(home, lab_key):
    """The key in a home."""
    shutil.copy(lab_key, home.path / ".ssh" / "lab_key")
    return home.path / ".ssh" / "lab_key"
