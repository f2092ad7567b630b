import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from ofa_agent.service import lock
from ofa_agent.service.lock import DeviceBusy, DeviceLock
from ofa_agent.service.models import ModelCache

HOLDER = """
import subprocess, sys, time
from ofa_agent.service.lock import DeviceLock
lock = DeviceLock.acquire()
lock.announce(address="127.0.0.1:5000", holder="ada@laptop")
child = None
if "--with-child" in sys.argv:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(command, pass_fds=(lock.descriptor,), stdout=subprocess.DEVNULL)
print(child.pid if child else 0, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OFA_AGENT_HOME", str(tmp_path))
    return tmp_path


@contextmanager
def holder(*flags):
    """Another process that holds the device, and the pid of its child."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            process.kill()


def test_a_second_agent_reports_the_process_address_and_holder():
    with holder() as (process, _), pytest.raises(DeviceBusy) as refused:
        DeviceLock.acquire()
    assert re.search(
        rf"process {process.pid} of \w+, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d, "
        r"on 127\.0\.0\.1:5000, held by ada@laptop since ",
        str(refused.value),
    )


def test_an_agent_without_a_holder_is_reported():
    held = DeviceLock.acquire()
    held.announce(holder="ada@laptop")
    held.announce(holder=None)
    with pytest.raises(DeviceBusy, match="held by nobody now"):
        DeviceLock.acquire()
    os.close(held.descriptor)


def test_the_device_is_free_after_its_agent_dies():
    with holder() as (process, _):
        process.kill()
        process.wait()
        os.close(DeviceLock.acquire().descriptor)


def test_a_living_worker_keeps_the_lock():
    with holder("--with-child") as (process, child):
        process.kill()
        process.wait()
        with pytest.raises(DeviceBusy, match=f"process {process.pid}"):
            DeviceLock.acquire()
        os.kill(child, 9)
        os.close(DeviceLock.acquire(wait_s=30.0).descriptor)


def test_a_waiting_agent_gets_the_device_when_it_is_free():
    with holder() as (process, _):
        process.stdin.close()  # the process then exits by itself
        os.close(DeviceLock.acquire(wait_s=30.0).descriptor)


def test_a_waiting_agent_is_refused_after_the_wait():
    with holder():
        start = time.monotonic()
        with pytest.raises(DeviceBusy):
            DeviceLock.acquire(wait_s=0.3)
        assert time.monotonic() - start >= 0.3


CONTENTS = [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"pid": 1, "user": "x", "since": "yesterday"}']
CONTENTS += [b'{"pid": 1, "user": "x", "since": 1e300}', b'{"pid": 1, "user": "x", "since": NaN}']


@pytest.mark.parametrize("content", CONTENTS)
def test_a_lock_with_unreadable_content_is_respected(content, home):
    held = DeviceLock.acquire()
    (home / "agent.lock").write_bytes(content)
    with pytest.raises(DeviceBusy, match="is not readable"):
        DeviceLock.acquire()
    os.close(held.descriptor)


def test_content_of_a_previous_agent_is_overwritten(home):
    (home / "agent.lock").write_bytes(b"x" * 5000)
    held = DeviceLock.acquire()
    assert f'"pid": {os.getpid()}'.encode() in (home / "agent.lock").read_bytes()
    os.close(held.descriptor)


def test_the_lock_is_open_to_every_user_and_does_not_follow_links(home):
    os.close(DeviceLock.acquire().descriptor)
    path = home / "agent.lock"
    assert path.stat().st_mode & 0o777 == 0o666
    path.unlink()
    path.symlink_to(home / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        DeviceLock.acquire()
    assert not (home / "elsewhere").exists()


def test_a_missing_home_is_created(home, monkeypatch):
    monkeypatch.setenv("OFA_AGENT_HOME", str(home / "new" / "home"))
    os.close(DeviceLock.acquire().descriptor)
    assert (home / "new" / "home").stat().st_mode & 0o777 == 0o700


def test_without_a_home_setting_the_lock_is_shared_by_all_users(monkeypatch):
    monkeypatch.delenv("OFA_AGENT_HOME")
    assert lock.lock_path() == "/tmp/ofa-agent.lock"


def test_a_home_that_is_a_link_in_the_shared_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("OFA_AGENT_HOME")
    monkeypatch.setattr(lock.tempfile, "gettempdir", lambda: str(tmp_path))
    victim = tmp_path / "victim"
    (victim / "models").mkdir(parents=True)
    (victim / "models" / "thesis.pth").write_text("three years")
    (tmp_path / f"ofa-agent-{os.getuid()}").symlink_to(victim)
    with pytest.raises(PermissionError, match="is a link, not a directory; remove it, or set OFA_AGENT_HOME"):
        lock.home()
    assert (victim / "models" / "thesis.pth").exists()


def test_a_home_that_others_can_write_is_refused(home):
    home.chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by other users"):
        lock.home()


def test_models_behind_a_link_are_not_deleted(home, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.pth").write_text("three years")
    (home / "models").symlink_to(victim)
    ModelCache(str(home / "models"))
    assert (victim / "thesis.pth").exists()
    assert not (home / "models").is_symlink()


def test_a_pipe_in_the_place_of_the_lock_is_refused(home):
    os.mkfifo(home / "agent.lock")
    for use in (DeviceLock.acquire, lock.end):
        with pytest.raises(PermissionError, match="is a pipe, not a file; remove it"):
            use()


def test_a_process_that_only_the_file_names_is_not_ended(home):
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        with holder() as (process, _):
            (home / "agent.lock").write_text(f'{{"pid": {bystander.pid}, "user": "x", "since": 0}}')
            assert lock.end()
            assert process.wait(5) != 0
        assert bystander.poll() is None
    finally:
        bystander.kill()


def test_a_process_that_is_ending_is_waited_for(monkeypatch):
    """The kernel frees the memory of a process, and with it the command, before its files."""
    monkeypatch.setattr(lock, "_command", lambda process: b"")
    with holder() as (process, _):
        monkeypatch.setattr(lock.time, "sleep", lambda seconds: (process.kill(), process.wait()))
        assert lock.end()


def test_a_process_that_does_not_end_is_reported(monkeypatch):
    monkeypatch.setattr(lock, "_command", lambda process: b"")
    with holder() as (process, _), pytest.raises(PermissionError, match="does not end"):
        lock.end(patience_s=0.2)
    assert process.returncode is not None


def test_a_process_that_is_not_an_agent_is_not_ended(home):
    other = subprocess.Popen(["flock", "-x", str(home / "agent.lock"), "-c", "echo; sleep 60"], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(PermissionError, match=f"process {other.pid}, which is not an agent, locks"):
            lock.end()
        assert other.poll() is None
    finally:
        other.kill()
