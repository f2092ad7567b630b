"""Which phone is meant, which binary fits it, and how its Shell asks; without a phone."""

import pytest

from ofa_agent.shell import Ran
from ofa_profiler.connections.adb import chosen
from ofa_profiler.connections.adb.binary import find
from ofa_profiler.connections.adb.server import Listed, _host_and_port
from ofa_profiler.connections.adb.shell import COMMANDS_AGE_S, FILES_AGE_S, OF_LATE_S, Snapshot
from ofa_profiler.targets import find_target
from ofa_tables.errors import DeviceError, Unreachable, UsageError

PIXEL = Listed("FA6A", "device", "Pixel")
OTHER_PIXEL = Listed("FA6B", "device", "Pixel_XL")
NOTE = Listed("R28M", "device", "SM_N9500")


def test_a_phone_is_found_by_its_model_whatever_else_is_connected():
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
        ("adb:FA6A", [Listed("FA6A", "no")], "udev rules"),
        ("adb:FA6A", [Listed("FA6A", "recovery")], "adb reboot"),
        ("adb:FA6A", [Listed("FA6A", "rescue")], "its state is rescue"),
        ("adb:ZZZZ", [PIXEL], "no phone has the serial ZZZZ; adb sees FA6A"),
    ],
)
def test_a_phone_that_cannot_be_used_is_never_replaced_by_another(name, listed, says):
    with pytest.raises(Unreachable, match=says):
        chosen(find_target(name), listed)


def test_two_phones_of_one_serial_are_told_apart_by_nobody():
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


def test_a_binary_of_the_phones_abi_is_taken(tmp_path):
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


def test_what_litert_cli_has_downloaded_is_found(monkeypatch, tmp_path):
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


def test_what_was_asked_once_is_fetched_in_one_call_the_next_time(snapshot, shell, clock):
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


def test_what_nobody_asks_any_more_is_fetched_no_more(snapshot, shell, clock):
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
