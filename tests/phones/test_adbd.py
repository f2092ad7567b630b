"""The tests' phone is a phone to the real adb server, the real client and adbutils."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import adbutils
import pytest

pytestmark = pytest.mark.real

ROOM = "/data/local/tmp"
BIG = 20_000_000
PATIENCE_S = 20.0


@pytest.fixture
def device(pixel):
    return pixel.device


def eventually(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)
    return value


def names(phone):
    """Of the processes that run there."""
    return phone.shell("ps -e -o args").output.splitlines()


def threads(phone):
    """How many the phone's daemon has."""
    return int(phone.shell("for task in /proc/$PPID/task/*; do echo; done | wc -l").output)


# What it is.


def test_the_server_lists_it_by_its_model(pixel, adb_server):
    (line,) = [line for line in adb_server.run("devices", "-l").stdout.splitlines() if line.startswith(pixel.serial)]
    assert line.split()[1:5] == ["device", "product:sailfish", "model:Pixel", "device:sailfish"]


def test_its_model_may_be_another(phone, adb_server):
    there = phone(
        "FA7B", **{f"ro.product.{key}": "walleye" for key in ("name", "device")}, **{"ro.product.model": "Pixel 2"}
    )
    assert f"{there.serial}" in adb_server.states()
    assert "model:Pixel_2 device:walleye" in adb_server.run("devices", "-l").stdout
    assert there.device.prop.model == "Pixel 2"
    assert there.device.getprop("ro.serialno") == "FA7B"


def test_properties_are_reported_one_by_one_and_all(device):
    assert device.shell("getprop ro.board.platform") == "msm8996"
    assert device.shell("getprop ro.not.there") == ""
    assert "[ro.product.model]: [Pixel]" in device.shell("getprop").splitlines()


def test_cores_and_governors_are_the_phones(device):
    of = "/sys/devices/system/cpu"
    clocks = device.shell(f"cat {of}/cpu*/cpufreq/cpuinfo_max_freq").split()
    assert clocks == ["1593600", "1593600", "2150400", "2150400"]
    assert device.shell(f"cat {of}/online") == "0-3"
    assert device.shell(f"echo performance > {of}/cpufreq/policy2/scaling_governor") == ""
    assert device.shell(f"cat {of}/cpufreq/policy*/scaling_governor").split() == ["schedutil", "performance"]
    device.shell(f"echo schedutil > {of}/cpufreq/policy2/scaling_governor")


def test_services_report_the_settings_of_the_phone(phone):
    there = phone()
    there.set_battery(5, 45.0)
    there.set("skin", 41.5)
    assert "  level: 5\n" in there.shell("dumpsys battery").output
    assert "  temperature: 450\n" in there.shell("dumpsys battery").output
    assert "Temperature{mValue=41.5, mType=3, mName=skin" in there.shell("dumpsys thermalservice").output
    there.shell("input keyevent 223")
    assert "mWakefulness=Asleep" in there.shell("dumpsys power").output
    assert "mScreenState=OFF" in there.shell("dumpsys display").output
    there.shell("svc power stayon usb")
    assert there.shell("settings get global stay_on_while_plugged_in").output.strip() == "2"


def test_fixed_performance_came_with_android_11(phone):
    command = "cmd power set-fixed-performance-mode-enabled true"
    old, new = phone(), phone(**{"ro.build.version.sdk": "30"})
    assert (old.shell(command).returncode, old.reported("fixed_performance")) == (255, "false")
    assert (new.shell(command).returncode, new.reported("fixed_performance")) == (0, "true")
    new.set("fixed_performance", "unsupported")  # as where the Power HAL is an old one
    assert (new.shell(command).returncode, new.reported("fixed_performance")) == (255, "unsupported")


def test_this_machine_does_not_see_the_phones_files(pixel):
    assert pixel.shell(f"echo here > {ROOM}/mark; echo here > /etc/ofa-mark; cat {ROOM}/mark").output.strip() == "here"
    assert not Path(ROOM, "mark").exists()
    assert not Path("/etc/ofa-mark").exists()


# Its shell.


def test_exit_codes_and_both_outputs_are_separate(pixel):
    ran = pixel.device.shell2("echo out; echo err >&2; exit 7", v2=True)
    assert (ran.returncode, ran.stdout.strip(), ran.stderr.strip()) == (7, "out", "err")
    assert pixel.device.shell2("kill -9 $$", v2=True).returncode == 128 + 9


def test_without_v2_outputs_come_together(device):
    assert sorted(device.shell("echo out; echo err >&2").split()) == ["err", "out"]


def test_input_is_read_to_its_end(pixel, adb_server):
    text = "".join(f"{number}\n" for number in range(100_000))
    ran = adb_server.run("-s", pixel.serial, "shell", "wc -c; echo done", reported=text)
    assert ran.stdout.split() == [str(len(text)), "done"]
    assert adb_server.run("-s", pixel.serial, "shell", reported="echo reported; exit 3\n").returncode == 3


def test_this_machines_python_runs_there(pixel):
    ran = pixel.shell(f"{sys.executable} -c 'import adbutils, os; print(os.getcwd())'")
    assert (ran.returncode, ran.output.strip()) == (0, "/")


def test_many_at_once_are_not_mixed_up(pixel):
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda number: pixel.shell(f"echo {number}").output.strip(), range(40)))
    assert said == [str(number) for number in range(40)]


def test_a_shell_that_ended_costs_nothing_any_more(pixel):
    before = threads(pixel)
    for _ in range(10):
        pixel.shell("true")
    assert eventually(lambda: threads(pixel) <= before)


def test_a_command_ends_when_its_reader_is_gone(pixel, adb_server):
    command = [adbutils.adb_path(), "-s", pixel.serial, "shell", "yes ofa-mark"]
    client = subprocess.Popen(command, env=adb_server.environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    client.stdout.read(100_000)
    assert "yes ofa-mark" in names(pixel)
    client.kill()
    client.communicate()
    assert eventually(lambda: not any("yes" in name for name in names(pixel)))


def test_a_command_that_writes_nothing_outlives_its_shell(pixel):
    """As on a phone: adbd tells the shell alone that its client is gone."""
    stream = pixel.device.open_transport(timeout=PATIENCE_S)
    stream.send_command("shell,v2,raw:sleep 7654; true")
    stream.check_okay()
    eventually(lambda: "sleep 7654" in names(pixel))
    stream.close()
    eventually(lambda: not any("7654; true" in name for name in names(pixel)))
    assert "sleep 7654" in names(pixel)
    pixel.shell("pkill -x sleep")


# Files.


def test_20_mb_go_there_and_back_by_the_real_client(pixel, adb_server, tmp_path):
    content = os.urandom(BIG)
    (tmp_path / "sent").write_bytes(content)
    pushed = adb_server.run("-s", pixel.serial, "push", tmp_path / "sent", f"{ROOM}/new/folder/file")
    assert pushed.returncode == 0, pushed.stderr
    pulled = adb_server.run("-s", pixel.serial, "pull", f"{ROOM}/new/folder/file", tmp_path / "back")
    assert pulled.returncode == 0, pulled.stderr
    assert (tmp_path / "back").read_bytes() == content
    pixel.shell(f"rm -r {ROOM}/new")


def test_20_mb_go_there_and_back_by_adbutils(device, tmp_path):
    content = os.urandom(BIG)
    (tmp_path / "sent").write_bytes(content)
    assert device.sync.push(tmp_path / "sent", f"{ROOM}/file", mode=0o755) == BIG
    assert device.sync.stat(f"{ROOM}/file").size == BIG
    assert device.shell(f"[ -x {ROOM}/file ] && echo may be run") == "may be run"
    assert device.sync.read_bytes(f"{ROOM}/file") == content
    assert "file" in [found.path for found in device.sync.list(ROOM)]
    device.shell(f"rm {ROOM}/file")


def test_a_missing_file_has_no_size_and_cannot_be_pulled(device, pixel, adb_server, tmp_path):
    assert device.sync.stat(f"{ROOM}/nothing").mode == 0
    with pytest.raises(adbutils.AdbError, match="open failed: No such file or directory"):
        device.sync.read_bytes(f"{ROOM}/nothing")
    pulled = adb_server.run("-s", pixel.serial, "pull", f"{ROOM}/nothing", tmp_path / "nothing")
    assert "'/data/local/tmp/nothing': No such file or directory" in pulled.stderr


def test_a_push_to_a_full_disk_leaves_no_partial_file(phone, adb_server, tmp_path):
    there = phone(size="4m")
    (tmp_path / "big").write_bytes(os.urandom(BIG))
    pushed = adb_server.run("-s", there.serial, "push", tmp_path / "big", f"{ROOM}/big")
    assert pushed.returncode == 1
    assert "remote write failed: No space left on device" in pushed.stderr
    assert there.shell(f"ls {ROOM}").output == ""
    there.fill_disk()
    with pytest.raises(adbutils.AdbError, match="FAIL"):
        there.device.sync.push(b"a" * 9000, f"{ROOM}/small")
    there.empty_disk()
    assert there.device.sync.push(b"a" * 9000, f"{ROOM}/small") == 9000


def test_a_failed_write_is_reported_in_the_words_of_adbd(pixel, adb_server, tmp_path):
    (tmp_path / "file").touch()
    pushed = adb_server.run("-s", pixel.serial, "push", tmp_path / "file", "/proc/ofa-mark")
    assert "remote couldn't create file: No such file or directory" in pushed.stderr


# Its sockets.


ECHO = """
import socket, sys
family = socket.AF_UNIX if sys.argv[1] != "tcp" else socket.AF_INET
server = socket.socket(family)
server.bind({"tcp": ("127.0.0.1", 0), "localabstract": "\\0ofa-%s" % sys.argv[2],
             "localfilesystem": "/data/local/tmp/ofa-%s" % sys.argv[2]}[sys.argv[1]])
server.listen()
print(server.getsockname()[1] if sys.argv[1] == "tcp" else "ready", flush=True)
far, _ = server.accept()
while True:
    data = far.recv(1 << 16)
    if not data:
        break
    far.sendall(data)
print("left", flush=True)
"""


@pytest.mark.parametrize("kind", ["tcp", "localabstract", "localfilesystem"])
def test_a_forward_leads_to_a_server_there_and_its_end_is_reported(pixel, adb_server, kind):
    pixel.device.sync.push(ECHO.encode(), f"{ROOM}/echo.py")
    name = str(os.getpid())
    command = [adbutils.adb_path(), "-s", pixel.serial, "shell", f"{sys.executable} {ROOM}/echo.py {kind} {name}"]
    server = subprocess.Popen(
        command, env=adb_server.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    said = server.stdout.readline().strip()
    place = {"tcp": said, "localabstract": f"ofa-{name}", "localfilesystem": f"{ROOM}/ofa-{name}"}[kind]
    port = int(adb_server.run("-s", pixel.serial, "forward", "tcp:0", f"{kind}:{place}").stdout)
    content = os.urandom(300_000)
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as near:
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(near.sendall, content)
            back = b""
            while len(back) < len(content):
                back += near.recv(1 << 16)
            sending.result()
        assert back == content
    assert server.communicate(timeout=PATIENCE_S)[0] == "left\n"


def test_where_nothing_listens_no_stream_is_opened(device):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(adbutils.AdbError, match="closed"):
        device.create_connection(adbutils.Network.TCP, port)


# What may go wrong.


@pytest.mark.parametrize("state", ["unauthorized", "offline"])
def test_it_may_not_let_anyone_in(phone, adb_server, state):
    there = phone(state=state)
    assert eventually(lambda: adb_server.states().get(there.serial) == state)
    with pytest.raises(adbutils.AdbError, match=state):
        there.shell("true")


def test_unplugged_in_the_middle_of_a_shell_it_is_gone(phone, adb_server):
    there = phone()
    stream = there.device.open_transport(timeout=PATIENCE_S)
    stream.send_command("shell:echo begun; exec sleep 60")
    stream.check_okay()
    assert stream.read_exact(5) == b"begun"
    there.unplug()
    assert stream.conn.recv(100).strip() == b""
    assert there.serial not in adb_server.states()
    there.plug_in_again()
    assert there.shell("echo again").output.strip() == "again"
    assert eventually(lambda: "sleep 60" not in names(there))


def test_stalled_it_answers_nothing_until_it_does_again(phone, adb_server):
    there = phone()
    there.order("stall")
    assert adb_server.states()[there.serial] == "device"
    with pytest.raises(adbutils.AdbTimeout):
        there.device.open_transport(timeout=0.5).check_okay()
    there.order("unstall")
    assert there.shell("echo again").output.strip() == "again"


def test_every_service_may_be_refused(phone):
    there = phone()
    there.order("refuse")
    with pytest.raises(adbutils.AdbError, match="closed"):
        there.shell("true")
    there.order("accept")
    assert there.shell("true").returncode == 0


def test_it_may_be_slow(phone):
    there = phone()
    there.order("slow", 1.0)
    stream = there.device.open_transport(timeout=0.3)
    stream.send_command("shell:true")
    with pytest.raises(adbutils.AdbTimeout):
        stream.check_okay()


def test_processes_on_a_phone_end_with_it(phone):
    there = phone()
    there.shell("setsid sleep 4321 > /dev/null 2>&1 &")
    assert "sleep 4321" in names(there)
    there.end()
    listed = subprocess.run(["ps", "-e", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 4321" not in listed.splitlines()
