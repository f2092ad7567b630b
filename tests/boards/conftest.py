"""A board: OpenSSH's sshd in namespaces of its own, with a user, a home, a /tmp and a network that are the board's.

Its processes end together, as by a reboot; its link can be cut and mended. What runs there is real; what the device is
(its chip, its clocks) is this machine's.
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COMMANDS = Path(sys.executable).parent
SPACE = "ofa-board-"
PATIENCE_S = 60.0
NUMBERS = itertools.count(1)

# In the board's namespaces: its users, its scratch folders, and then the server for good.
SETUP = r"""
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/shadow" /etc/shadow
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /run/1 /run/2
mount --rbind "$1" /run/1
mount --rbind "$2" /run/2
for folder in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o size="$3" tmpfs "$folder"; done
for kept in 2 1; do  # what lay below one of those is there again
    eval folder=\$$kept
    [ -d "$folder" ] || { mkdir -p "$folder"; mount --rbind /run/$kept "$folder"; }
done
. "$1/own"
exec /usr/sbin/sshd -D -e -f "$1/sshd_config"
"""


def _missing():
    if os.getuid() != 0:
        return "a board needs namespaces, which only root may make"
    for program in ("/usr/sbin/sshd", "ip", "unshare", "ssh-keygen"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    done = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, text=True)
    return done.stderr.strip()


def _forget_the_dead():
    """Namespaces of tests that were killed before they could tidy up; with one goes its wire."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.split()
    for space in (word for word in listed if word.startswith(SPACE)):
        if not Path(f"/proc/{space.removeprefix(SPACE).partition('-')[0]}").exists():
            pids = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True).stdout.split()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", space], capture_output=True)


def run(*words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


class Board:
    """``address`` is the board's in its network; ``host_address`` this side's."""

    user, password = "nvidia", "jetson four"

    def __init__(self, folder, shell="/bin/bash", full=False, read_only_home=False, user_land=None, noexec=False):
        number = next(NUMBERS)
        self._scratch = ("8k" if full else "1g") + (",noexec" if noexec else "")
        self.folder = folder
        self.home = folder / "home"
        self.bin = folder / "bin"
        for path in (self.home, self.bin):
            path.mkdir(parents=True)
        self._space = f"{SPACE}{os.getpid()}-{number}"
        self._wire = f"ofa{os.getpid()}-{number}"
        network = f"10.{200 + os.getpid() % 50}.{(os.getpid() // 50 + number) % 250}"
        self.host_address, self.address = (f"{network}.{end}" for end in (1, 2))
        self._process = None
        self.path = f"{self.bin}:/usr/bin:/bin"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key")
        self.authorized = folder / "authorized_keys"
        self.authorized.touch()
        self._write_files(shell, full, read_only_home, user_land)
        run("ip", "netns", "add", self._space)
        run("ip", "link", "add", self._wire, "type", "veth", "peer", "name", "eth0", "netns", self._space)
        run("ip", "address", "add", f"{self.host_address}/30", "dev", self._wire)
        run("ip", "link", "set", self._wire, "up")
        for words in (("address", "add", f"{self.address}/30", "dev", "eth0"), ("link", "set", "eth0", "up")):
            run("ip", "-n", self._space, *words)
        run("ip", "-n", self._space, "link", "set", "lo", "up")

    def _write_files(self, shell, full, read_only_home, user_land):
        users = Path("/etc/passwd").read_text() + f"{self.user}:x:0:0::{self.home}:{shell}\n"
        salted = subprocess.run(
            ["openssl", "passwd", "-6", self.password], capture_output=True, text=True, check=True
        ).stdout.strip()
        (self.folder / "passwd").write_text(users)
        (self.folder / "shadow").write_text(Path("/etc/shadow").read_text() + f"{self.user}:{salted}:19000::::::\n")
        (self.folder / "sshd_config").write_text(
            f"HostKey {self.folder}/host_key\nAuthorizedKeysFile {self.authorized}\n"
            "PidFile none\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication yes\nStrictModes no\n"
            f"SetEnv PATH={self.path}\nMaxStartups 100\n"
        )
        own = []
        if user_land:
            self._moves_into(user_land, own)
        if full:
            own += [f"mount -t tmpfs -o size={self._scratch} tmpfs {self.home}"]
        if read_only_home:
            own += [f"mount --bind {self.home} {self.home}", f"mount -o remount,bind,ro {self.home}"]
        (self.folder / "own").write_text("\n".join(own))

    def _moves_into(self, user_land, own):
        """Whoever logs in is in another user land; sshd, the network and the kernel are this machine's."""
        enter = self.folder / "enter"
        enter.write_text(
            f"#!/bin/sh\nexec /usr/sbin/chroot {user_land} /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin "
            '/bin/bash -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        enter.chmod(0o755)
        with (self.folder / "sshd_config").open("a") as config:
            config.write(f"ForceCommand {enter}\n")
        own.append(f"mount --bind {user_land} {user_land}; mount -t proc proc {user_land}/proc")
        own.append(f"mount --rbind /dev {user_land}/dev")
        # Without /sys: it tells of this machine's processor, which native libraries there then take for theirs.
        own += [f"mount -t tmpfs tmpfs {user_land}/{place}" for place in ("tmp", "var/tmp", "root")]

    def start(self):
        self._log = (self.folder / "sshd.log").open("ab")
        self._process = subprocess.Popen(
            [
                *("ip", "netns", "exec", self._space),
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("sh", "-c", SETUP, "sh", str(self.folder), str(REPOSITORY), self._scratch),
            ],
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection((self.address, 22), timeout=1).close()
                return self
            except OSError:
                assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def kill(self):
        """All its processes at once, as when the power fails."""
        if self._process is not None:
            for pid in [*self.processes(everything=True), self._process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def processes(self, everything=False):
        """The board's processes that are ours: agents and their workers."""
        if self._process is None:
            return []
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                ours = any(b"ofa-agent-" in word for word in words)
                if (everything or ours) and os.readlink(entry / "ns" / "net") == self._net():
                    found.append(int(entry.name))
        return found

    def measured(self):
        """How many trials an agent has measured there since the board was started."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                log = Path(f"/proc/{pid}/root/tmp/ofa-agent-0/agent.log").read_text()
                return log.count('"event": "measured"')
        return 0

    def _net(self):
        inode = os.stat(f"/run/netns/{self._space}").st_ino
        return f"net:[{inode}]"

    def cut(self):
        run("ip", "-n", self._space, "link", "set", "eth0", "down")

    def fix(self):
        run("ip", "-n", self._space, "link", "set", "eth0", "up")

    def python(self, name, interpreter):
        """One that is found on the board's PATH."""
        script = self.bin / name
        script.write_text(f'#!/bin/sh\nexec {interpreter} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)

    def hide(self, pattern):
        """What fits is not there any more, as far as the board's own processes see."""
        with (self.folder / "own").open("a") as own:
            own.write(f"\nfor file in {pattern}; do mount --bind /dev/null $file; done\n")
        self.kill()
        self.start()

    def remove(self):
        self.kill()
        subprocess.run(["ip", "netns", "del", self._space], capture_output=True)
        subprocess.run(["ip", "link", "del", self._wire], capture_output=True)


class Host:
    """Someone's machine: a home with keys and known hosts, a folder to work in, and our commands."""

    def __init__(self, folder, name="alice"):
        self.home = folder / name
        self.ssh = self.home / ".ssh"
        self.folder = self.home / "work"
        for path in (self.ssh, self.folder):
            path.mkdir(parents=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.ssh / "id_ed25519")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "XDG_"))},
            "HOME": str(self.home),
            "COLUMNS": "200",
            "USER": name,
            "LOGNAME": name,
        }

    def knows(self, board, address=None):
        """Its key is known here, and ours there."""
        key = " ".join((board.folder / "host_key.pub").read_text().split()[:2])
        with (self.ssh / "known_hosts").open("a") as file:
            file.write(f"{address or board.address} {key}\n")
        with board.authorized.open("a") as file:
            file.write((self.ssh / "id_ed25519.pub").read_text())

    def binds(self, name, address, **values):
        lines = [f"[{name}]", f'address = "{address}"', *(f"{key} = {json.dumps(v)}" for key, v in values.items())]
        (self.folder / "targets.toml").write_text("\n".join(lines) + "\n")

    def start(self, *words):
        return subprocess.Popen(
            [COMMANDS / words[0], *map(str, words[1:])],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words, timeout_s=300):
        process = self.start(*words)
        out, err = process.communicate(timeout=timeout_s)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(words, process.returncode, out, err)


class Relay:
    """A way to the board that is ``delay_s`` long in each direction, and can stand still or break off."""

    def __init__(self, address, delay_s=0.0):
        self._address = address
        self._delay_s = delay_s
        self.bytes = 0
        self._ends = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def break_off(self):
        """Every connection ends at once, be it in the middle of a message."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def close(self):
        self._listener.close()
        self.break_off()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._address, 22))
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ends += [near, far]
                for source, sink in ((near, far), (far, near)):
                    self._carry(source, sink)

    def _carry(self, source, sink):
        import queue

        under_way = queue.SimpleQueue()

        def take():
            with contextlib.suppress(OSError):
                while chunk := source.recv(1 << 16):
                    self.bytes += len(chunk)
                    under_way.put((time.monotonic() + self._delay_s, chunk))
            under_way.put((time.monotonic() + self._delay_s, b""))

        def give():
            with contextlib.suppress(OSError):
                while True:
                    due, chunk = under_way.get()
                    time.sleep(max(0.0, due - time.monotonic()))
                    if not chunk:
                        break
                    sink.sendall(chunk)
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        for work in (take, give):
            threading.Thread(target=work, daemon=True).start()


def eventually(condition, patience_s=PATIENCE_S):
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)
    return value


@pytest.fixture
def eventual():
    return eventually


@pytest.fixture
def make_board(tmp_path):
    """A running board of its own, with today's Python and what the agent needs unless ``python`` names another."""
    missing = _missing()
    if missing:
        pytest.skip(missing)
    _forget_the_dead()
    boards = []

    def make(python=sys.executable, name="python3", **what):
        board = Board(tmp_path / f"board{len(boards)}", **what)
        boards.append(board)
        if python:
            board.python(name, python)
        return board.start()

    yield make
    for board in boards:
        board.remove()


@pytest.fixture
def board(make_board):
    return make_board()


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture
def make_host(tmp_path):
    return lambda name: Host(tmp_path, name)


@pytest.fixture
def relay():
    relays = []

    def make(address, delay_s=0.0):
        relays.append(Relay(address, delay_s))
        return relays[-1]

    yield make
    for one in relays:
        one.close()
