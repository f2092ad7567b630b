"""A phone's adb daemon over TCP, for the real adb server: connect it with ``adb connect 127.0.0.1:PORT``.

It speaks the device's side of the protocol (CNXN, AUTH, OPEN, OKAY, WRTE, CLSE; shell v2, sync, sockets) over a world
of its own: a mount and a process namespace in which ``/data/local/tmp`` exists and the properties, clocks and services
are a phone's. What runs there runs for real, on this machine's processor; its network is this machine's.

    python adbd.py --folder F [--port P] [--size 512m] [--path FOLDERS] [--state device|unauthorized|offline]

finds the phone's properties in ``F/state``, its cores in ``F/cpu`` and its sensors in ``F/thermal``. It prints the
port, then obeys lines on its standard input: vanish, come-back, stall, unstall, refuse, accept, slow SECONDS. It ends
with its standard input. There are no terminals: each shell is as of ``adb shell -T``.

https://android.googlesource.com/platform/packages/modules/adb: protocol.txt, SERVICES.TXT, SYNC.TXT, shell_protocol.h,
file_sync_protocol.h; the words and what happens when a client leaves are as in its daemon/.
"""

import argparse
import contextlib
import itertools
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

VERSION, MOST_DATA = 0x01000001, 1 << 20
HEADER = struct.Struct("<6I")
TOKEN, SIGNATURE = 1, 2
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
PACKET = struct.Struct("<BI")
MOST_FILE_DATA = 1 << 16
FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir"

# In the phone's namespaces: its root is this machine's with another layer on top, which is gone with the phone.
WORLD = r"""
set -e
folder=$1; size=$2; shift 2
mount -t tmpfs tmpfs "$folder/layer"
mkdir "$folder/layer/upper" "$folder/layer/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/layer/upper,workdir=$folder/layer/work" "$folder/root"
cd "$folder/root"
mount -t tmpfs tmpfs tmp
for path in dev sys "$@"; do mkdir -p "./$path"; mount --rbind "/$path" "./$path"; done
mount -t proc proc proc
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
[ $# -gt 0 ] || exec sed 's/^\([^=]*\)=\(.*\)$/[\1]: [\2]/' /data/phone/properties
found=$2
while IFS='=' read -r name value; do [ "$name" = "$1" ] && found=$value; done < /data/phone/properties
echo "$found"
""",
    "dumpsys": r"""
case $1 in
  battery) echo "Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 2153000
  status: 2
  health: 2
  present: true
  level: $(cat /data/phone/level)
  scale: 100
  voltage: 4161
  temperature: $(cat /data/phone/temperature)
  technology: Li-ion" ;;
  thermalservice) echo "IsStatusOverride: false
ThermalEventListeners:
	callbacks: 2
	killed: false
	broadcasts count: -1
ThermalStatusListeners:
	callbacks: 1
	killed: false
	broadcasts count: -1
Thermal Status: $(cat /data/phone/thermal_status)
Cached temperatures:
HAL Ready: true
HAL connection:
	ThermalHAL 2.0 connected: yes
Current temperatures from HAL:
	Temperature{mValue=$(cat /data/phone/skin), mType=3, mName=skin, mStatus=$(cat /data/phone/thermal_status)}
Current cooling devices from HAL:" ;;
  power) echo "POWER MANAGER (dumpsys power)

Power Manager State:
  mWakefulness=$(cat /data/phone/wakefulness)" ;;
  display) [ "$(cat /data/phone/wakefulness)" = Awake ] && screen=ON || screen=OFF
    echo "Display Power Controller State:
  mScreenState=$screen" ;;
  *) echo "Can't find service: $1" >&2 ;;
esac
""",
    "cmd": r"""
[ "$1" = power ] || { echo "cmd: Can't find service: $1" >&2; exit 20; }
[ "$2" = set-fixed-performance-mode-enabled ] && [ "$(getprop ro.build.version.sdk)" -ge 30 ] ||
  { echo "Unknown command: $2"; exit 255; }
if [ "$(cat /data/phone/fixed_performance)" = unsupported ]; then
  echo "Failed to set FIXED_PERFORMANCE mode
This is likely because Power HAL AIDL is not implemented on this device" >&2
  exit 255
fi
echo "$3" > /data/phone/fixed_performance
""",
    "input": r"""
[ "$1" = keyevent ] || exit 255
case $2 in
  223|KEYCODE_SLEEP) echo Asleep > /data/phone/wakefulness ;;
  224|KEYCODE_WAKEUP) echo Awake > /data/phone/wakefulness ;;
esac
""",
    "settings": r"""
case $1 in
  get) cat "/data/phone/settings.$2.$3" 2>/dev/null || echo null ;;
  put) echo "$4" > "/data/phone/settings.$2.$3" ;;
  *) exit 255 ;;
esac
""",
    "svc": r"""
[ "$1 $2" = "power stayon" ] || exit 255
case $3 in true) on=7 ;; ac) on=1 ;; usb) on=2 ;; wireless) on=4 ;; *) on=0 ;; esac
settings put global stay_on_while_plugged_in $on
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
    """One service that the server opened. Each end waits until the other has taken what it sent before."""

    def __init__(self, transport, own, theirs):
        self.transport, self.own, self.theirs = transport, own, theirs
        self.taken = threading.Semaphore(0)
        self.inbox = queue.Queue()
        self.left = bytearray()
        self.closed = False
        self.leave = lambda: None

    def send(self, data):
        """Raises ConnectionError where the other end is gone."""
        for start in range(0, len(data), self.transport.most):
            if not self.closed:
                self.transport.say(b"WRTE", self.own, self.theirs, data[start : start + self.transport.most])
                self.taken.acquire()
            if self.closed:
                raise ConnectionError

    def read(self, size):
        """Exactly so many bytes; fewer where the other end closed."""
        while len(self.left) < size and (data := self.some()) is not None:
            self.left += data
        taken = bytes(self.left[:size])
        del self.left[:size]
        return taken

    def some(self):
        """What comes next; None where the other end closed."""
        data = self.inbox.get()
        if data is None:
            self.inbox.put(None)
        else:
            self.transport.say(b"OKAY", self.own, self.theirs)
        return data

    def when_left(self, leave):
        """Called, maybe twice, as soon as the other end is gone."""
        self.leave = leave
        if self.closed:
            leave()

    def end(self):
        """The other end is gone."""
        self.closed = True
        self.inbox.put(None)
        self.taken.release()
        self.leave()


class Transport:
    """One connection of an adb server."""

    def __init__(self, connection, options, world, faults):
        self.connection, self.options, self.world, self.faults = connection, options, world, faults
        self.most = MOST_DATA
        self.streams = {}
        self.numbers = itertools.count(1)
        self.gone = False
        self.mutex = threading.Lock()

    def run(self):
        with contextlib.suppress(OSError, EOFError), self.connection:
            while True:
                command, first, second, length, _, _ = HEADER.unpack(self.exactly(HEADER.size))
                data = self.exactly(length)
                self.faults.awake.wait()
                self.take(struct.pack("<I", command), first, second, data)
        self.gone = True
        for stream in list(self.streams.values()):
            stream.end()

    def take(self, command, first, second, data):
        if command == b"CNXN":
            self.most = min(self.most, second)
            self.greet()
        elif command == b"AUTH" and first == SIGNATURE:  # a public key waits for the phone's user
            self.greet()
        elif command == b"OPEN":
            threading.Thread(target=self.open, args=(first, data.rstrip(b"\0").decode()), daemon=True).start()
        elif stream := self.streams.get(second):
            if command == b"OKAY":
                stream.taken.release()
            elif command == b"WRTE":
                stream.inbox.put(data)
            elif command == b"CLSE" and self.streams.pop(second, None):
                stream.end()

    def greet(self):
        if self.options.state == "unauthorized":
            self.say(b"AUTH", TOKEN, 0, os.urandom(20))
        elif self.options.state == "device":
            properties = self.world.properties
            about = "".join(
                f"ro.product.{name}={properties['ro.product.' + name]};" for name in ("name", "model", "device")
            )
            self.say(b"CNXN", VERSION, MOST_DATA, f"device::{about}features={self.options.features}".encode())

    def open(self, theirs, service):
        time.sleep(self.faults.slow_s)
        serve = None if self.faults.refusing else self.world.service(service)
        if serve is None:
            self.say(b"CLSE", 0, theirs)
            return
        own = next(self.numbers)
        stream = self.streams[own] = Stream(self, own, theirs)
        if self.gone:
            stream.end()
        self.say(b"OKAY", own, theirs)
        with contextlib.suppress(OSError):
            serve(stream)
        if self.streams.pop(own, None):
            self.say(b"CLSE", own, theirs)
            stream.end()

    def say(self, command, first, second, data=b""):
        (number,) = struct.unpack("<I", command)
        # Only who speaks an older version looks at the sum, and none has agreed on one before CNXN.
        total = sum(data) & 0xFFFFFFFF if command in (b"CNXN", b"AUTH") else 0
        header = HEADER.pack(number, first, second, len(data), total, number ^ 0xFFFFFFFF)
        self.faults.awake.wait()
        with self.mutex, contextlib.suppress(OSError):
            self.connection.sendall(header + data)

    def exactly(self, size):
        data = bytearray()
        while len(data) < size:
            chunk = self.connection.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)


class World:
    """What runs on the phone. This process has its root there."""

    def __init__(self, options):
        self.environment = {
            "HOME": "/",
            "TMPDIR": "/data/local/tmp",
            "LC_ALL": "C",
            "PATH": f"/system/bin:{options.path}:/usr/bin:/bin",
        }
        lines = Path("/data/phone/properties").read_text().splitlines()
        self.properties = dict(line.split("=", 1) for line in lines)
        self.features = options.features.split(",")

    def service(self, name):
        """What serves a stream; None where there is no such service."""
        kind, _, rest = name.partition(":")
        kind, *flags = kind.split(",")
        if "v2" in flags and "shell_v2" not in self.features:
            return None  # as before Android 7
        if kind in ("shell", "exec"):
            return lambda stream: self.shell(stream, rest, "v2" in flags)
        if kind == "sync":
            return lambda stream: Sync(stream).serve()
        if kind == "tcp":
            return tunnel(socket.AF_INET, ("127.0.0.1", int(rest)))
        if kind == "localabstract":
            return tunnel(socket.AF_UNIX, f"\0{rest}")
        if kind == "localfilesystem":
            return tunnel(socket.AF_UNIX, rest)
        return None

    def shell(self, stream, command, apart):
        near, inside = socket.socketpair()  # as adbd has them: one can be shut while another thread reads from it
        errors, inside_errors = socket.socketpair()
        process = subprocess.Popen(
            ["/bin/sh", *(["-c", command] if command else [])],
            stdin=inside,
            stdout=inside,
            stderr=inside_errors if apart else inside,
            env=self.environment,
            cwd="/",
            start_new_session=True,
        )
        inside.close()
        inside_errors.close()
        mutex = threading.Lock()

        def tell(kind, data):
            with mutex:
                stream.send(PACKET.pack(kind, len(data)) + data if apart else data)

        def pass_on(pipe, kind):
            with contextlib.suppress(OSError):
                while data := pipe.recv(1 << 15):
                    tell(kind, data)

        def feed():
            for kind, data in reported(stream, apart):
                with contextlib.suppress(OSError):  # it may have closed its input
                    if kind == STDIN:
                        near.sendall(data)
                    elif kind == CLOSE_STDIN:
                        near.shutdown(socket.SHUT_WR)

        def leave():
            """The shell is told; what it started is not, and has nobody to write to any more."""
            process.send_signal(signal.SIGHUP)
            for pipe in (near, errors):
                shut(pipe)

        stream.when_left(leave)
        readers = [
            threading.Thread(target=pass_on, args=pair, daemon=True) for pair in ((near, STDOUT), (errors, STDERR))
        ]
        for thread in [*readers, threading.Thread(target=feed, daemon=True)]:
            thread.start()
        for reader in readers:  # what it left in the background may hold its output: then the shell has not ended
            reader.join()
        code = process.wait()
        if apart:
            tell(EXIT, bytes([code if code >= 0 else 128 - code]))


def reported(stream, apart):
    """Kinds and contents of what a shell is told, until the other end is gone."""
    while not apart and (data := stream.some()) is not None:
        yield STDIN, data
    while apart and len(head := stream.read(PACKET.size)) == PACKET.size:
        kind, length = PACKET.unpack(head)
        yield kind, stream.read(length)


def shut(end):
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def tunnel(family, address):
    """Serves a stream by a socket of the phone; None where nothing listens there."""
    far = socket.socket(family)
    try:
        far.connect(address)
    except OSError:
        far.close()
        return None

    def serve(stream):
        def back():
            with contextlib.suppress(OSError):
                while data := far.recv(1 << 15):
                    stream.send(data)
            stream.inbox.put(None)

        stream.when_left(lambda: shut(far))
        threading.Thread(target=back, daemon=True).start()
        with far:
            with contextlib.suppress(OSError):
                while (data := stream.some()) is not None:
                    far.sendall(data)
            shut(far)  # closed alone, it would live on in the thread that reads from it

    return serve


class Refused(Exception):
    """A request that could not be done, in adbd's words."""


@contextlib.contextmanager
def refusing(what):
    try:
        yield
    except OSError as error:
        raise Refused(f"{what}: {error.strerror}") from None


class Sync:
    """Copies files to and from the phone, for one stream. A request that fails is its last."""

    def __init__(self, stream):
        self.stream = stream

    def serve(self):
        answers = {
            b"STAT": self.stat,
            b"STA2": self.stat_2,
            b"LST2": self.stat_2,
            b"LIST": self.list,
            b"LIS2": self.list,
        }
        answers |= {b"SEND": self.receive, b"RECV": self.give}
        try:
            while len(head := self.stream.read(8)) == 8 and head[:4] in answers:
                answers[head[:4]](head[:4], self.stream.read(struct.unpack("<I", head[4:])[0]).decode())
        except Refused as refused:
            self.fail(str(refused))
            return
        if head and head[:4] != b"QUIT":
            self.fail(f"unknown command {head[:4]!r}")

    def stat(self, _, path):
        try:
            found = os.lstat(path)
        except OSError:
            self.stream.send(b"STAT" + bytes(12))
        else:
            self.stream.send(b"STAT" + short(found))

    def stat_2(self, command, path):
        self.stream.send(command + long(path, follow=command == b"STA2"))

    def list(self, command, path):
        with contextlib.suppress(OSError):
            for name in (".", "..", *os.listdir(path)):
                there = os.path.join(path, name)
                about = b"DENT" + short(os.lstat(there)) if command == b"LIST" else b"DNT2" + long(there, follow=False)
                self.stream.send(about + struct.pack("<I", len(name.encode())) + name.encode())
        self.stream.send(b"DONE" + bytes(16 if command == b"LIST" else 72))

    def receive(self, _, target):
        path, _, mode = target.rpartition(",")
        try:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(path)
            self.write(path)
        except Refused as refused:
            self.fail(str(refused))
            while self.data() is not None:  # until the other end has noticed
                pass
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise ConnectionError from None
        bits = int(mode) & 0o777
        bits |= bits >> 3 & 0o070  # adbd gives the user's rights to the group, and the group's to all
        os.chmod(path, bits | bits >> 3 & 0o007)
        os.utime(path, (self.written_s, self.written_s))
        self.stream.send(b"OKAY" + bytes(4))

    def write(self, path):
        with refusing("secure_mkdirs failed"):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with refusing("couldn't create file"):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            while (data := self.data()) is not None:
                with refusing("write failed"):
                    while data:
                        data = data[os.write(file, data) :]
        finally:
            os.close(file)

    def data(self):
        """A piece of a file; None behind the last. Raises ConnectionError."""
        head = self.stream.read(8)
        if len(head) < 8:
            raise ConnectionError
        kind, number = struct.unpack("<4sI", head)
        if kind == b"DONE":
            self.written_s = number
            return None
        return self.stream.read(number)

    def give(self, _, path):
        with refusing("open failed"):
            file = os.open(path, os.O_RDONLY)
        try:
            while True:
                with refusing("read failed"):
                    data = os.read(file, MOST_FILE_DATA - 8)
                if not data:
                    break
                self.stream.send(b"DATA" + struct.pack("<I", len(data)) + data)
        finally:
            os.close(file)
        self.stream.send(b"DONE" + bytes(4))

    def fail(self, text):
        self.stream.send(b"FAIL" + struct.pack("<I", len(text)) + text.encode())


def short(found):
    return struct.pack("<3I", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))


def long(path, follow):
    try:
        found = os.stat(path, follow_symlinks=follow)
    except OSError as error:
        return struct.pack("<I", error.errno) + bytes(64)
    return struct.pack(
        "<I2Q4IQ3q",
        *(0, found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size),
        *(int(found.st_atime), int(found.st_mtime), int(found.st_ctime)),
    )


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


def reap(daemon):
    """As init does: what was left by who started it is not kept as a zombie. Ends with the daemon, and all with it."""
    while os.wait()[0] != daemon:
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--size", default="512m")
    parser.add_argument("--path", default="/usr/bin")
    parser.add_argument("--state", choices=("device", "unauthorized", "offline"), default="device")
    parser.add_argument("--features", default=FEATURES)
    parser.add_argument("--bind", nargs="*", default=[], help="further folders that lie on file systems of their own")
    parser.add_argument("--inside", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it may be run under nohup, which a phone's shells are not
    if not options.inside:
        build(options)
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, *sys.argv, "--inside"]
        os.execvp(unshare[0], unshare)
    subprocess.run(
        ["sh", "-c", WORLD, "sh", options.folder, options.size, *(path.lstrip("/") for path in options.bind)],
        check=True,
    )
    os.chroot(options.folder / "root")
    os.chdir("/")
    daemon = os.fork()
    if daemon:
        reap(daemon)
    else:
        Daemon(options).serve()


if __name__ == "__main__":
    main()
