"""Phones: the real adb server on a port of its own, and device daemons (adbd.py) with a Pixel's properties.

``AdbServer`` and ``Phone`` serve outside pytest, too.
"""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import adbutils
import pytest

HERE = Path(__file__).parent
COMMANDS = Path(sys.executable).parent
STAND_IN = HERE / "benchmark_model.py"
NUMBERS = itertools.count(1)
PATIENCE_S = 30.0

# The first Pixel, as published: see README.md beside this file.
PIXEL = {
    "ro.board.platform": "msm8996",
    "ro.build.fingerprint": "google/sailfish/sailfish:10/QP1A.191005.007.A3/5972272:user/release-keys",
    "ro.build.id": "QP1A.191005.007.A3",
    "ro.build.version.release": "10",
    "ro.build.version.sdk": "29",
    "ro.hardware": "sailfish",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.product.device": "sailfish",
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel",
    "ro.product.name": "sailfish",
}
CLUSTERS = {0: 1593600, 1: 1593600, 2: 2150400, 3: 2150400}  # kHz by core
STATE = {
    "level": "84",
    "temperature": "298",  # tenths of a degree
    "skin": "33.2",
    "thermal_status": "0",
    "wakefulness": "Awake",
    "fixed_performance": "false",
    "build.prop": "# as every Android has it",
}


# What a phone's world is made of; it leaves nothing behind.
TRIAL = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
"""


def _missing(folder):
    if os.getuid() != 0:
        return "a phone needs namespaces, which only root may make"
    for program in ("unshare", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    trial = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", TRIAL, "sh", str(folder)]
    done = subprocess.run(trial, capture_output=True, text=True)
    return done.returncode and f"a phone's file system cannot be made here: {done.stderr.strip()}"


def _needs_a_mount(folder):
    """Whether a phone's root, which has a /tmp of its own, would lack it."""
    return os.path.ismount(folder) or Path("/tmp") in Path(folder).parents


class AdbServer:
    """The real one; ``environment`` leads a command to it."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ADB_", "ANDROID_"))},
            "HOME": str(folder),
            "ANDROID_ADB_SERVER_PORT": str(self.port),
        }
        alone = {"ADB_LIBUSB": "0", "ADB_MDNS": "0", "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553"}  # no emulators either
        self._process = subprocess.Popen(
            # It ends with this process, however that ends.
            ["setpriv", "--pdeathsig", "KILL", adbutils.adb_path(), "-P", str(self.port), "nodaemon", "server"],
            env={**self.environment, **alone},
            stdout=subprocess.DEVNULL,
            stderr=(folder / "adb.log").open("wb"),
        )
        self._wait(folder / "adb.log")  # adbutils starts another one where it finds none
        self.client = adbutils.AdbClient("127.0.0.1", self.port, 10.0)

    def _wait(self, log):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
                return
            except OSError:
                assert self._process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "the adb server does not listen"
                time.sleep(0.02)

    def run(self, *words, reported=""):
        """By the real client."""
        return subprocess.run(
            [adbutils.adb_path(), *map(str, words)],
            env=self.environment,
            input=reported,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def states(self):
        return {info.serial: info.state for info in self.client.list()}

    def end(self):
        self._process.kill()
        self._process.wait()


class Phone:
    """A phone that is plugged in. ``serial`` is the one that adb knows it by; ``state`` its files, to be changed."""

    def __init__(self, server, folder, serialno, size="512m", state="device", path="", features=None, **properties):
        folder.mkdir(parents=True)
        self.folder, self.state = folder, folder / "state"
        self._server = server
        self._lay_out({**PIXEL, **properties, "ro.serialno": serialno})
        binds = [str(COMMANDS.parent.parent), str(Path(sys.base_prefix))]
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(HERE / "adbd.py"), "--folder", str(folder), "--size", size, "--state", state),
                *(() if features is None else ("--features", features)),
                *("--path", path or str(COMMANDS), "--bind", *(bind for bind in binds if _needs_a_mount(bind))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "adbd.log").open("wb"),
            text=True,
        )
        port = self._process.stdout.readline().strip()
        assert port, (folder / "adbd.log").read_text()
        self.serial = f"127.0.0.1:{port}"
        self.device = server.client.device(self.serial)
        self.plug_in()

    def plug_in(self):
        with contextlib.suppress(adbutils.AdbError):
            self._server.client.connect(self.serial, timeout=5.0)

    def unplug(self):
        self.order("vanish")
        with contextlib.suppress(adbutils.AdbError):
            self._server.client.disconnect(self.serial)

    def plug_in_again(self):
        self.order("come-back")
        self.plug_in()

    def order(self, *words):
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline().strip() == "done"

    def set(self, name, value):
        (self.state / name).write_text(f"{value}\n")

    def reported(self, name):
        return (self.state / name).read_text().strip()

    def set_battery(self, level, temperature_c):
        self.set("level", level)
        self.set("temperature", round(temperature_c * 10))

    def fill_disk(self):
        self.shell("cat /dev/zero > /data/local/tmp/full")

    def empty_disk(self):
        self.shell("rm /data/local/tmp/full")

    def shell(self, command):
        return self.device.shell2(command, v2=True, timeout=PATIENCE_S)

    def end(self):
        with contextlib.suppress(adbutils.AdbError):
            self._server.client.disconnect(self.serial)
        self._process.kill()
        self._process.wait()

    def _lay_out(self, properties):
        self.state.mkdir()
        (self.state / "properties").write_text("".join(f"{k}={v}\n" for k, v in sorted(properties.items())))
        for name, value in STATE.items():
            self.set(name, value)
        cpu, thermal = self.folder / "cpu", self.folder / "thermal"
        files = {"online": "0-3", "possible": "0-3", "present": "0-3"}
        for core, khz in CLUSTERS.items():
            files[f"cpu{core}/cpufreq/cpuinfo_max_freq"] = str(khz)
        for first, khz in ((0, 1593600), (2, 2150400)):
            policy = f"cpufreq/policy{first}"
            files |= {
                f"{policy}/cpuinfo_max_freq": str(khz),
                f"{policy}/cpuinfo_min_freq": "307200",
                f"{policy}/scaling_cur_freq": str(khz),
                f"{policy}/scaling_governor": "schedutil",
                f"{policy}/scaling_available_governors": "powersave performance schedutil",
                f"{policy}/scaling_min_freq": "307200",
                f"{policy}/scaling_max_freq": str(khz),
            }
        for name, value in files.items():
            (cpu / name).parent.mkdir(parents=True, exist_ok=True)
            (cpu / name).write_text(value + "\n")
        zone = thermal / "thermal_zone0"
        zone.mkdir(parents=True)
        (zone / "type").write_text("tsens_tz_sensor0\n")
        (zone / "temp").write_text("33000\n")


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory):
    reason = _missing(tmp_path_factory.mktemp("trial"))
    if reason:
        pytest.skip(reason)
    server = AdbServer(tmp_path_factory.mktemp("adb"))
    yield server
    server.end()


@pytest.fixture
def phone(adb_server, tmp_path_factory):
    """Makes phones; all are unplugged at the end."""
    phones = []

    def make(serialno="FA6A", **about):
        made = Phone(adb_server, tmp_path_factory.mktemp("phones") / f"phone{next(NUMBERS)}", serialno, **about)
        phones.append(made)
        return made

    yield make
    for each in phones:
        each.end()


@pytest.fixture(scope="module")
def pixel(adb_server, tmp_path_factory):
    """One for those tests that leave a phone as it was."""
    made = Phone(adb_server, tmp_path_factory.mktemp("pixel") / "phone", "FA6A")
    yield made
    made.end()
