"""Which phone is meant, which binary fits it, how its Shell asks, and what is measured with it; without a phone."""

import os
from pathlib import Path

import pytest

from ofa_agent.conditions.affinity import Affinity
from ofa_agent.device.shell import Ran
from ofa_agent.measuring.timing import Budget
from ofa_agent.operators import Activation, Block
from ofa_agent.protocol import messages as wire
from ofa_profiler.connections.adb import AdbConnection, chosen, left_out
from ofa_profiler.connections.adb import host_agent as beside
from ofa_profiler.connections.adb.binary import find
from ofa_profiler.connections.adb.host_agent import PhoneTrialExecutor
from ofa_profiler.connections.adb.listing import Listed, parse_devices, parse_states
from ofa_profiler.connections.adb.server import AdbServer, Phone, _host_and_port
from ofa_profiler.connections.adb.shell import COMMANDS_AGE_S, FILES_AGE_S, FREE, OF_LATE_S, AdbShell, Snapshot
from ofa_profiler.targets.target import find_target
from ofa_tables.errors import DeviceError, Unreachable, UsageError

PIXEL = Listed("FA6A", "device", "Pixel")
OTHER_PIXEL = Listed("FA6B", "device", "Pixel_XL")
NOTE = Listed("R28M", "device", "SM_N9500")


def test_a_phone_is_found_by_its_model_among_others():
    assert chosen(find_target("pixel-1"), [NOTE, PIXEL]) == ["FA6A"]
    assert chosen(find_target("samsung-note8"), [NOTE, PIXEL]) == ["R28M"]


def test_several_phones_of_one_model_are_all_meant():
    assert chosen(find_target("pixel-1"), [PIXEL, NOTE, OTHER_PIXEL]) == ["FA6A", "FA6B"]


def test_a_serial_names_one_of_them():
    assert chosen(find_target("adb:FA6B"), [PIXEL, OTHER_PIXEL]) == ["FA6B"]
    assert chosen(find_target("adb:FA6B,FA6A"), [PIXEL, OTHER_PIXEL]) == ["FA6B", "FA6A"]


@pytest.mark.parametrize(
    ("name", "listed", "says"),
    [
        ("pixel-1", [], "adb sees no phone at all"),
        ("pixel-1", [NOTE], r"no pixel-1 is connected \(model Pixel or Pixel XL\); adb sees R28M \(SM_N9500\)"),
        ("pixel-1", [Listed("FA6A", "unauthorized")], "tap Allow"),
        ("adb:FA6A", [Listed("FA6A", "unauthorized")], "FA6A.*tap Allow"),
        ("adb:FA6A", [Listed("FA6A", "offline")], "is offline: .*plug it in again"),
        ("adb:FA6A", [Listed("FA6A", "no permissions")], "udev rules"),
        ("adb:FA6A", [Listed("FA6A", "recovery")], "adb reboot"),
        ("adb:FA6A", [Listed("FA6A", "rescue")], "it is in rescue mode"),
        ("adb:FA6A", [Listed("FA6A", "hibernating")], "its state is hibernating"),
        ("adb:ZZZZ", [PIXEL], "no phone has the serial ZZZZ; adb sees FA6A"),
    ],
)
def test_a_phone_that_cannot_be_used_is_never_replaced_by_another(name, listed, says):
    with pytest.raises(Unreachable, match=says):
        chosen(find_target(name), listed)


def test_other_matching_phones_that_cannot_be_used_are_reported():
    silent, off = Listed("FA6C", "unauthorized"), Listed("FA6D", "offline", "Pixel")
    assert left_out(find_target("pixel-1"), [PIXEL, silent, off, Listed("R1", "offline", "SM_1")]) == [silent, off]
    assert left_out(find_target("adb:FA6A"), [PIXEL, silent]) == []


def test_a_message_names_a_phone_by_its_serial_once():
    server = AdbServer("127.0.0.1")
    assert Phone(server, "FA6A", "pixel-1").label == "pixel-1 (FA6A)"
    assert Phone(server, "FA6A", "pixel-1 FA6A").label == "pixel-1 FA6A"


class Member:
    """A phone whose agent cannot always be had."""

    def __init__(self, name, trouble=None):
        self.name, self.trouble, self.set_aside = name, trouble, ""

    @property
    def agent(self):
        if self.trouble:
            raise self.trouble
        return self

    def describe(self):
        return {"fingerprint": "f"}

    def close(self):
        pass


def phones(*members):
    connection = AdbConnection(find_target("pixel-1"))
    connection._members = members
    connection.said = []
    connection.say = connection.said.append
    return connection


def test_a_phone_that_cannot_be_measured_does_not_keep_the_others_from_it():
    empty, full = Member("one", DeviceError("one: the battery is at 5%")), Member("two")
    connection = phones(empty, full)
    assert connection.agent is full
    assert empty.set_aside == "one: the battery is at 5%"
    assert connection.said == ["one: the battery is at 5%; continuing without it"]


def test_where_no_phone_can_be_measured_each_says_why():
    with pytest.raises(DeviceError, match="one is held; two is empty"):
        _ = phones(Member("one", DeviceError("one is held")), Member("two", DeviceError("two is empty"))).agent
    with pytest.raises(Unreachable, match="unplugged"):
        _ = phones(Member("one", Unreachable("unplugged"))).agent


def test_two_phones_of_one_serial_cannot_be_distinguished():
    with pytest.raises(DeviceError, match="2 phones have the serial FA6A; unplug all but one"):
        chosen(find_target("adb:FA6A"), [PIXEL, PIXEL])


@pytest.mark.parametrize(
    ("address", "means"),
    [
        ("lab", ("lab", 5037)),
        ("lab:6000", ("lab", 6000)),
        ("10.0.0.7:6000", ("10.0.0.7", 6000)),
        ("[::1]:6000", ("::1", 6000)),
    ],
)
def test_an_adb_server_is_named_by_host_and_port(address, means):
    assert _host_and_port(address) == means


def test_the_environment_names_the_server_as_adb_reads_it(monkeypatch):
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "6001")
    assert _host_and_port("") == ("127.0.0.1", 6001)
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:lab:6002")
    assert _host_and_port("") == ("lab", 6002)


def test_a_server_that_is_none_is_a_wrong_call():
    with pytest.raises(UsageError, match="HOST or HOST:PORT"):
        _host_and_port("lab:six")


ELF = {"arm64-v8a": 183, "armeabi-v7a": 40, "x86_64": 62}


def binary(tmp_path, machine):
    path = tmp_path / "tool"
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + ELF[machine].to_bytes(2, "little") + bytes(40))
    return path


def test_a_binary_with_the_abi_of_the_phone_is_used(tmp_path):
    path = binary(tmp_path, "arm64-v8a")
    assert find({"benchmark_model": str(path)}, "arm64-v8a", "pixel-1") == path


def test_a_binary_for_another_abi_is_refused_and_the_right_one_named(tmp_path):
    path = binary(tmp_path, "x86_64")
    with pytest.raises(DeviceError, match=r"is built for x86_64, pixel-1 is arm64-v8a; get it .*aarch64"):
        find({"benchmark_model": str(path)}, "arm64-v8a", "pixel-1")


def test_where_there_is_none_it_says_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DeviceError, match=r"is not here; get it for armeabi-v7a from https://.*--set benchmark_model="):
        find({}, "armeabi-v7a", "lg-g8")
    with pytest.raises(DeviceError, match=r"No such file.*build it for x86 "):
        find({"benchmark_model": str(tmp_path / "none")}, "x86", "an emulator")


def test_a_binary_that_litert_cli_downloaded_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".cache/litert-cli/binaries/arm64-v8a"
    folder.mkdir(parents=True)
    path = binary(folder, "arm64-v8a").rename(folder / "benchmark_model")
    assert find({}, "arm64-v8a", "pixel-1") == path


class CountedShell:
    """Answers every request with its words; ``calls`` are the requests of each adb call."""

    def __init__(self):
        self.calls = []
        self.gone = False

    def ask(self, requests, timeout_s=10.0):
        if self.gone:
            raise Unreachable("unplugged")
        self.calls.append(list(requests))
        return tuple(Ran(0, " ".join(request.words)) for request in requests)


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def shell():
    return CountedShell()


@pytest.fixture
def snapshot(shell, clock):
    return Snapshot(shell, lambda: clock[0])


def ask_all(snapshot):
    snapshot.read("/a")
    snapshot.read("/b")
    snapshot.list("/c/*")
    return snapshot.run("dumpsys", "battery").output


def test_values_read_once_are_fetched_in_one_call_the_next_time(snapshot, shell, clock):
    ask_all(snapshot)
    assert len(shell.calls) == 4
    clock[0] += FILES_AGE_S + 0.01
    ask_all(snapshot)
    assert len(shell.calls) == 5
    assert len(shell.calls[-1]) == 3  # the command's answer is not old yet


def test_commands_are_asked_again_when_they_are_old(snapshot, shell, clock):
    ask_all(snapshot)
    clock[0] += COMMANDS_AGE_S + 0.01
    ask_all(snapshot)
    assert len(shell.calls) == 5
    assert len(shell.calls[-1]) == 4


def test_questions_that_come_seldom_do_not_spoil_the_others(snapshot, shell, clock):
    for number in range(6):
        if number == 2:
            snapshot.read("/seldom")
        ask_all(snapshot)
        clock[0] += FILES_AGE_S + 0.01
    shell.calls.clear()
    ask_all(snapshot)
    assert len(shell.calls) == 1


def test_values_that_are_no_longer_read_are_no_longer_fetched(snapshot, shell, clock):
    ask_all(snapshot)
    for _ in range(3):
        clock[0] += OF_LATE_S
        snapshot.read("/a")
    assert [request.words for request in shell.calls[-1]] == [("/a",)]


def test_a_phone_that_is_gone_answers_nothing(snapshot, shell):
    shell.gone = True
    assert snapshot.read("/a") is None
    assert snapshot.list("/c/*") == []
    assert not snapshot.run("dumpsys", "battery").ok


class MadeUpPhone:
    """Has room for so many bytes; what runs there runs as well as TFLite's tool once did."""

    name = label = "pixel-1"
    printed = (Path(__file__).parents[1] / "agents" / "benchmark_model_outputs" / "default-2025.txt").read_text()

    def __init__(self, room=1 << 20):
        self.room, self.files, self.scripts = room, {}, []

    def run(self, script, *lines, payload=b"", timeout_s=0.0):
        self.scripts.append(script)
        return Ran(0, "")

    def push(self, path, content, mode=0o644):
        if len(content) + sum(self.files.values()) > self.room:
            raise DeviceError(f"pixel-1 does not take {path}: write failed: No space left on device")
        self.files[path] = len(content)


class MadeUpShell(AdbShell):
    def ask(self, requests, timeout_s=10.0):
        return tuple(map(self._ran, requests))

    def _ran(self, request):
        if request.words[0] == "rm":
            del self.phone.files[request.words[-1]]
        if request.kind != "hold":
            return Ran(1, "")
        (graph,) = (word.partition("=")[2] for word in request.words if word.startswith("--graph="))
        return Ran(0, self.phone.printed) if graph in self.phone.files else Ran(1, "", f"Could not open '{graph}'.")


@pytest.fixture
def executor(tmp_path):
    (tmp_path / "tool").write_bytes(bytes(20))

    def make(room):
        made = PhoneTrialExecutor(MadeUpShell(MadeUpPhone(room)), tmp_path / "tool")
        assert made.probe().runtimes
        return made

    return make


@pytest.fixture
def trial(tmp_path):
    """A trial whose model and reference have so many bytes."""

    def make(bytes_of_model, bytes_of_reference=0):
        paths = []
        for name, size in (("model", bytes_of_model), ("reference", bytes_of_reference)):
            path = tmp_path / f"{name}{size}"
            path.write_bytes(bytes(size))
            paths.append(str(path) if size else "")
        settings = wire.Settings(runtime="benchmark_model-none", precision="fp32", threads=1, batch=1)
        jobs = [wire.job_message(Block("a", (1, 1, 1), (Activation("relu"),)), settings, path) for path in paths]
        taken = wire.Trial(trial_id="v", job=jobs[0], reference=jobs[1])
        wire.set_budget(taken.budget, Budget(), 30.0)
        return wire.WorkerTrial(trial=taken, model_path=paths[0], reference_path=paths[1])

    return make


def test_a_reference_without_room_next_to_the_model_is_left_out(executor, trial):
    made = executor(room=1000)
    assert made.take(trial(100)).status == "ok"
    measurement = made.take(trial(700, 400))
    assert measurement.status == "ok", measurement.error
    assert "No space left on device" in measurement.reference_error
    assert sorted(map(os.path.basename, made._models)) == ["model700.tflite"]


def test_models_are_removed_only_if_the_phone_reports_a_lack_of_space(executor, trial, monkeypatch):
    made = executor(room=1000)
    assert made.take(trial(600)).status == made.take(trial(700)).status == "ok"
    assert list(made._models) == [f"{beside.MODELS}/model700.tflite"]

    def refuse(path, content, mode=0o644):
        raise DeviceError("pixel-1 does not take it: couldn't create file: Read-only file system")

    monkeypatch.setattr(made._shell.phone, "push", refuse)
    assert "Read-only" in made.take(trial(50)).error
    assert list(made._models) == [f"{beside.MODELS}/model700.tflite"]


def test_every_failure_is_a_measurement(executor, trial, monkeypatch, tmp_path):
    made = executor(room=1000)
    monkeypatch.setattr(made._shell.phone, "push", lambda *_: 1 / 0)
    measurement = made.take(trial(100))
    assert (measurement.status, measurement.error) == ("crashed", "ZeroDivisionError: division by zero")
    missing = PhoneTrialExecutor(made._shell, tmp_path / "none").probe().missing_runtimes
    assert missing["benchmark_model"].startswith("FileNotFoundError: ")


def test_every_core_is_put_back_as_every_core_whichever_were_on_when_it_was_asked():
    phone = MadeUpPhone()
    shell = MadeUpShell(phone)
    state = Affinity().state(shell, "affinity")
    Affinity().put_back(shell, "affinity", state)
    assert phone.scripts == [FREE]


def test_a_phone_is_not_where_this_process_runs():
    assert not AdbShell(MadeUpPhone()).here
    assert not Snapshot(AdbShell(MadeUpPhone())).here


WIRELESS = "adb-2A111FDH200CGV-9QFSDG (2)._adb-tls-connect._tcp"


@pytest.mark.parametrize(
    ("line", "serial", "state"),
    [
        (f"{WIRELESS}\tdevice", WIRELESS, "device"),
        (f"{WIRELESS} device product:oriole model:Pixel_6 device:oriole transport_id:3", WIRELESS, "device"),
        (f"{WIRELESS}\toffline", WIRELESS, "offline"),
        ("FA6A                   unauthorized usb:1-2 transport_id:4", "FA6A", "unauthorized"),
        ("FA6A\thibernating deeply", "FA6A", "hibernating deeply"),
        ("my device (2)          device hibernating model:Pixel", "my device (2)", "device"),
        ("FA6A                   hibernating transport_id:4", "FA6A", "hibernating"),
        (
            "????????????\tno permissions (user in plugdev group; see [http://d.android.com/device.html])",
            "????????????",
            "no permissions",
        ),
        ("FA6A  no permissions (missing udev rules?); see [http://x] usb:1-2", "FA6A", "no permissions"),
        ("127.0.0.1:5555\trescue", "127.0.0.1:5555", "rescue"),
        ("FA6A\tdetached", "FA6A", "detached"),
    ],
)
def test_a_serial_may_contain_blanks_and_a_state_may_be_new(line, serial, state):
    assert parse_states(line + "\n") == {serial: state}


def test_models_are_found_for_serials_with_blanks():
    short = f"{WIRELESS}\tdevice\nFA6A\toffline\n"
    long = (
        f"{WIRELESS} device product:oriole model:Pixel_6 device:oriole transport_id:3\nFA6A   offline transport_id:1\n"
    )
    assert parse_devices(short, long) == [Listed(WIRELESS, "device", "Pixel_6"), Listed("FA6A", "offline")]
