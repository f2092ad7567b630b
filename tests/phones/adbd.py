"""A phone's adb daemon over TCP, for the real adb server: connect it with ``adb connect 127.0.0.1:PORT``.

It speaks the device's side of the protocol (CNXN, AUTH, OPEN, OKAY, WRTE, CLSE; shell v2, sync, tcp) over a world of
its own: a mount and a process namespace in which ``/data/local/tmp`` exists and the properties, clocks and services
are a phone's. What runs there runs for real, on this machine's processor; its network is this machine's.

    python adbd.py --folder F [--port P] [--size 512m] [--path FOLDERS] [--state device|unauthorized|offline]

prints the port, then obeys lines on its standard input: vanish, come-back, stall, unstall, refuse, accept, slow
SECONDS. It ends with its standard input. https://android.googlesource.com/platform/packages/modules/adb: protocol.txt,
SERVICES.TXT, SYNC.TXT, shell_protocol.h.
"""

import argparse
import contextlib
import os
import queue
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

VERSION, MOST_DATA = 0x01000001, 1 << 20
HEADER = struct.Struct("<6I")
TOKEN = 1
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir"

# In the phone's namespaces: its root is this machine's with another layer on top, which is gone with the phone.
WORLD = r"""
set -e
folder=$1; size=$2; shift 2
mount -t tmpfs tmpfs "$folder/layer"
mkdir "$folder/layer/upper" "$folder/layer/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/layer/upper,workdir=$folder/layer/work" "$folder/root"
cd "$folder/root"
for path in dev sys "$@"; do mkdir -p "./$path"; mount --rbind "/$path" "./$path"; done
mount -t proc proc proc
mount -t tmpfs tmpfs tmp
mkdir -p data/local/tmp data/phone system/bin
mount -t tmpfs -o size="$size" tmpfs data/local/tmp
mount --bind "$folder/state" data/phone
mount --bind "$folder/bin" system/bin
cp "$folder/state/build.prop" system/
mount --bind "$folder/cpu" sys/devices/system/cpu
[ ! -d sys/class/thermal ] || mount --bind "$folder/thermal" sys/class/thermal
"""

COMMANDS = {
    "getprop": r"""
case $# in
  0) sed 's/^\([^=]*\)=\(.*\)$/[\1]: [\2]/' /data/phone/properties ;;
  *) sed -n "s/^$1=//p" /data/phone/properties ;;
esac
""",
    "dumpsys": r"""
case $1 in
  battery) echo "Current Battery Service state:
  AC powered: false
  USB powered: true
  level: $(cat /data/phone/level)
  scale: 100
  temperature: $(cat /data/phone/temperature)
  technology: Li-ion" ;;
  thermalservice) echo "IsStatusOverride: false
Thermal Status: $(cat /data/phone/thermal_status)
Cached temperatures:
HAL Ready: true
Current temperatures from HAL:
	Temperature{mValue=33.2, mType=3, mName=skin, mStatus=0}" ;;
  power) echo "Power Manager State:
  mWakefulness=$(cat /data/phone/wakefulness)" ;;
  *) echo "Can't find service: $1" ;;
esac
""",
    "cmd": r"""
[ "$1 $2" = "power set-fixed-performance-mode-enabled" ] || { echo "cmd: Can't find service: $1" >&2; exit 20; }
echo "$3" > /data/phone/fixed_performance
""",
    "input": r"""
case $2 in
  223) echo Asleep > /data/phone/wakefulness ;;
  224) echo Awake > /data/phone/wakefulness ;;
esac
""",
    "taskset": r"""
echo "$1" > /data/phone/mask  # this machine may lack the phone's cores
shift
exec "$@"
""",
}


class Faults:
    """What the daemon was told to do wrong."""

    def __init__(self):
        self.refusing = False
        self.slow_s = 0.0
        self.awake = threading.Event()
        self.awake.set()


class Stream:
    """One service that the server opened. What it sends waits until the one before was taken."""

    def __init__(self, transport, own, theirs):
        self.transport, self.own, self.theirs = transport, own, theirs
        self.taken = threading.Semaphore(0)
        self.inbox = queue.Queue()
        self.left = b""
        self.closed = False

    def send(self, data):
        for start in range(0, len(data), self.transport.most):
            self.transport.say(b"WRTE", self.own, self.theirs, data[start : start + self.transport.most])
            self.taken.acquire()
            if self.closed:
                raise ConnectionError

    def read(self, size):
        """Exactly so many bytes; fewer where the other end closed."""
        while len(self.left) < size:
            data = self.inbox.get()
            if data is None:
                self.inbox.put(None)
                break
            self.left += data
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    def some(self):
        data = self.inbox.get()
        if data is None:
            self.inbox.put(None)
        return data

    def end(self):
        """The other end is gone."""
        self.closed = True
        self.inbox.put(None)
        self.taken.release()


class Transport:
    """One connection of an adb server."""

    def __init__(self, connection, options, world, faults):
        self.connection, self.options, self.world, self.faults = connection, options, world, faults
        self.most = MOST_DATA
        self.streams = {}
        self.mutex = threading.Lock()

    def run(self):
        with contextlib.suppress(OSError, EOFError, struct.error), self.connection:
            while True:
                command, first, second, length, _, _ = HEADER.unpack(self.exactly(HEADER.size))
                data = self.exactly(length)
                self.faults.awake.wait()
                self.take(struct.pack("<I", command), first, second, data)
        for stream in list(self.streams.values()):
            stream.end()

    def take(self, command, first, second, data):
        if command in (b"CNXN", b"AUTH"):
            if command == b"CNXN":
                self.most = min(self.most, second)
            self.greet()
        elif command == b"OPEN":
            threading.Thread(target=self.open, args=(first, data.rstrip(b"\0").decode()), daemon=True).start()
        elif command == b"OKAY" and second in self.streams:
            self.streams[second].taken.release()
        elif command == b"WRTE" and second in self.streams:
            self.streams[second].inbox.put(data)
            self.say(b"OKAY", second, first)
        elif command == b"CLSE" and second in self.streams:
            self.streams.pop(second).end()

    def greet(self):
        if self.options.state == "unauthorized":
            self.say(b"AUTH", TOKEN, 0, os.urandom(20))
        elif self.options.state == "device":
            properties = self.world.properties
            about = "".join(
                f"ro.product.{name}={properties['ro.product.' + name]};" for name in ("name", "model", "device")
            )
            self.say(b"CNXN", VERSION, MOST_DATA, f"device::{about}features={FEATURES}".encode())

    def open(self, theirs, service):
        time.sleep(self.faults.slow_s)
        own = next(number for number in range(1, 1 << 30) if number not in self.streams)
        stream = self.streams[own] = Stream(self, own, theirs)
        serve = None if self.faults.refusing else self.world.service(service)
        if serve is None:
            self.say(b"CLSE", 0, theirs)
            return
        self.say(b"OKAY", own, theirs)
        with contextlib.suppress(OSError, ConnectionError):
            serve(stream)
        if self.streams.pop(own, None):
            self.say(b"CLSE", own, theirs)

    def say(self, command, first, second, data=b""):
        (number,) = struct.unpack("<I", command)
        header = HEADER.pack(number, first, second, len(data), 0, number ^ 0xFFFFFFFF)
        self.faults.awake.wait()
        with self.mutex, contextlib.suppress(OSError):
            self.connection.sendall(header + data)

    def exactly(self, size):
        data = b""
        while len(data) < size:
            chunk = self.connection.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data


class World:
    """What runs on the phone, and its files."""

    def __init__(self, options):
        self.root = options.folder / "root"
        self.path = options.path
        lines = (options.folder / "state/properties").read_text().splitlines()
        self.properties = dict(line.split("=", 1) for line in lines)

    def service(self, name):
        kind, _, rest = name.partition(":")
        kind, *flags = kind.split(",")
        if kind in ("shell", "exec"):
            return lambda stream: self.shell(stream, rest, "v2" in flags)
        if kind == "sync":
            return self.sync
        if kind == "tcp":
            return self.tcp(int(rest))
        return None

    def shell(self, stream, command, apart):
        process = subprocess.Popen(
            ["/usr/sbin/chroot", self.root, "/usr/bin/env", "-i", *self.environment(), "/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if apart else subprocess.STDOUT,
            start_new_session=True,
        )
        mutex = threading.Lock()

        def tell(kind, data):
            with mutex:
                stream.send(struct.pack("<BI", kind, len(data)) + data if apart else data)

        def pass_on(pipe, kind):
            with contextlib.suppress(ConnectionError):
                while data := pipe.read1(1 << 15):
                    tell(kind, data)

        def feed():
            with contextlib.suppress(OSError, struct.error):
                while True:
                    if apart:
                        kind, length = struct.unpack("<BI", stream.read(5))
                        data = stream.read(length)
                        if kind == CLOSE_STDIN:
                            break
                    else:
                        data = stream.some()
                        if data is None:
                            break
                    process.stdin.write(data)
                    process.stdin.flush()
            with contextlib.suppress(OSError):
                process.stdin.close()
            if stream.closed:  # as adbd does when its shell's socket is gone
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGHUP)

        readers = [threading.Thread(target=pass_on, args=(process.stdout, STDOUT), daemon=True)]
        if apart:
            readers.append(threading.Thread(target=pass_on, args=(process.stderr, STDERR), daemon=True))
        for thread in [*readers, threading.Thread(target=feed, daemon=True)]:
            thread.start()
        code = process.wait()
        for reader in readers:
            reader.join(timeout=1.0)  # what it left running in the background may hold the pipes
        if apart:
            tell(EXIT, bytes([code if code >= 0 else 128 - code]))

    def environment(self):
        return ["HOME=/", "TMPDIR=/data/local/tmp", "LC_ALL=C", f"PATH=/system/bin:{self.path}:/usr/bin:/bin"]

    def sync(self, stream):
        while True:
            head = stream.read(8)
            if len(head) < 8 or head[:4] == b"QUIT":
                return
            command, length = struct.unpack("<4sI", head)
            path = stream.read(length).decode()
            if command in (b"STAT", b"LSTA"):
                stream.send(b"STAT" + struct.pack("<3I", *self.stat(path)))
            elif command == b"SEND":
                self.receive(stream, *path.rsplit(",", 1))
            elif command == b"RECV":
                self.give(stream, path)
            else:
                self.fail(stream, f"unknown command {command!r}")

    def stat(self, path):
        try:
            found = self.there(path).stat()
        except OSError:
            return 0, 0, 0
        return found.st_mode, min(found.st_size, 0xFFFFFFFF), int(found.st_mtime)

    def receive(self, stream, path, mode):
        error, file = None, None
        try:
            file = self.there(path).open("wb")
        except OSError as problem:
            error = problem
        while True:
            kind, length = struct.unpack("<4sI", stream.read(8))
            if kind == b"DONE":
                break
            data = stream.read(length)
            try:
                if file is not None and error is None:
                    file.write(data)
                    file.flush()
            except OSError as problem:
                error = problem
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
        if error is not None:
            self.fail(stream, f"couldn't write to '{path}': {error.strerror}")
            return
        self.there(path).chmod(stat.S_IMODE(int(mode)))
        stream.send(b"OKAY" + struct.pack("<I", 0))

    def give(self, stream, path):
        try:
            content = self.there(path).read_bytes()
        except OSError as error:
            self.fail(stream, f"open failed: {error.strerror}")
            return
        for start in range(0, len(content), 1 << 16):
            chunk = content[start : start + (1 << 16)]
            stream.send(b"DATA" + struct.pack("<I", len(chunk)) + chunk)
        stream.send(b"DONE" + struct.pack("<I", 0))

    def fail(self, stream, text):
        stream.send(b"FAIL" + struct.pack("<I", len(text)) + text.encode())

    def there(self, path):
        return self.root / path.lstrip("/")

    def tcp(self, port):
        try:
            far = socket.create_connection(("127.0.0.1", port), 5.0)
        except OSError:
            return None
        far.settimeout(None)

        def serve(stream):
            def back():
                with contextlib.suppress(OSError, ConnectionError):
                    while data := far.recv(1 << 15):
                        stream.send(data)
                stream.inbox.put(None)

            threading.Thread(target=back, daemon=True).start()
            with far:
                while (data := stream.some()) is not None:
                    far.sendall(data)

        return serve


class Daemon:
    def __init__(self, options):
        self.options = options
        self.faults = Faults()
        self.world = World(options)
        self.listener = self.listen(options.port)
        self.port = self.listener.getsockname()[1]
        self.connections = []

    def listen(self, port):
        return socket.create_server(("127.0.0.1", port))

    def serve(self):
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()
        print(self.port, flush=True)
        for line in sys.stdin:
            self.obey(*line.split())

    def accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections.append(connection)
                transport = Transport(connection, self.options, self.world, self.faults)
                threading.Thread(target=transport.run, daemon=True).start()

    def obey(self, order, value="0"):
        if order == "vanish":
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.connections.clear()
        elif order == "come-back":
            self.listener = self.listen(self.port)
            threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()
        elif order in ("stall", "unstall"):
            (self.faults.awake.clear if order == "stall" else self.faults.awake.set)()
        elif order in ("refuse", "accept"):
            self.faults.refusing = order == "refuse"
        elif order == "slow":
            self.faults.slow_s = float(value)
        print("done", flush=True)


def build(options):
    """The phone's folder: its commands; its files are the caller's."""
    for name in ("root", "layer", "bin"):
        (options.folder / name).mkdir(exist_ok=True)
    for name, script in COMMANDS.items():
        path = options.folder / "bin" / name
        path.write_text("#!/bin/sh" + script)
        path.chmod(0o755)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--size", default="512m")
    parser.add_argument("--path", default="/usr/bin")
    parser.add_argument("--state", choices=("device", "unauthorized", "offline"), default="device")
    parser.add_argument("--bind", nargs="*", default=[], help="further folders that lie on file systems of their own")
    parser.add_argument("--inside", action="store_true")
    options = parser.parse_args()
    if not options.inside:
        build(options)
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, *sys.argv, "--inside"]
        os.execvp(unshare[0], unshare)
    subprocess.run(
        ["sh", "-c", WORLD, "sh", options.folder, options.size, *(path.lstrip("/") for path in options.bind)],
        check=True,
    )
    Daemon(options).serve()


if __name__ == "__main__":
    main()
