"""The agent is copied to a device where other users can write: only our own unchanged copy is run.

The shell is real, on this machine. Another user's files need root.
"""

import os
import shutil
import subprocess

import pytest

from ofa_agent.device.shell import Ran
from ofa_profiler.connections.deploy import Deployment
from ofa_tables.errors import DeviceError

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of another user need root")


class Shell:
    """A Link to ``sh`` on this machine."""

    def __init__(self, home):
        self.home = home
        self.scripts = []

    def run(self, script, *lines, payload=b"", timeout_s=60.0):
        self.scripts.append(script)
        content = "".join(line + "\n" for line in lines).encode() + payload
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        ran = subprocess.run(
            ["sh", "-c", script], input=content, capture_output=True, env=environment, timeout=timeout_s
        )
        return Ran(ran.returncode, ran.stdout.decode().strip(), ran.stderr.decode().strip())


@pytest.fixture
def places(tmp_path):
    """A board whose home cannot be written, with one shared folder."""
    home, shared = tmp_path / "home", tmp_path / "shared"
    home.write_text("not a directory")
    shared.mkdir()
    shared.chmod(0o1777)
    return home, shared


@pytest.fixture
def deployment(places):
    home, shared = places
    found = Deployment(Shell(home), "pi", [str(shared)])
    found._folders = found._folders[:1]  # not the shared folders of this machine
    return found


def planted(deployment, shared, content=b"planted"):
    folder = shared / f"ofa-profile-{os.getuid()}"
    folder.mkdir(mode=0o700)
    (folder / deployment._zip).write_bytes(content)
    return folder


def test_the_agent_is_copied_once(deployment, places):
    folder = places[1] / f"ofa-profile-{os.getuid()}"
    assert deployment.folder == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / deployment._zip).read_bytes() == deployment._content
    again = Deployment(Shell(places[0]), "pi", [str(places[1])])
    again._folders = again._folders[:1]
    assert again.folder == str(folder)
    assert not any("cat >" in script for script in again._link.scripts)


def test_a_file_with_other_content_is_replaced(deployment, places):
    folder = planted(deployment, places[1])
    assert deployment.folder == str(folder)
    assert (folder / deployment._zip).read_bytes() == deployment._content


@needs_root
def test_the_folder_of_another_user_is_not_used(deployment, places):
    folder = planted(deployment, places[1], deployment._content)
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(DeviceError, match=f"{folder} belongs to another user"):
        assert deployment.folder
    assert deployment.remove() == []
    assert folder.exists()


@needs_root
def test_the_file_of_another_user_is_replaced_by_ours(deployment, places):
    folder = planted(deployment, places[1], deployment._content)
    os.chown(folder / deployment._zip, NOBODY, NOBODY)
    assert deployment.folder == str(folder)
    assert (folder / deployment._zip).stat().st_uid == os.getuid()


def test_a_folder_that_others_can_write_is_not_used(deployment, places):
    folder = planted(deployment, places[1], deployment._content)
    folder.chmod(0o777)
    with pytest.raises(DeviceError, match=f"{folder} can be written by other users"):
        assert deployment.folder


def test_a_link_is_not_followed(deployment, places, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "thesis.txt").write_text("three years")
    (places[1] / f"ofa-profile-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(DeviceError, match="is a link"):
        assert deployment.folder
    assert deployment.remove() == []
    assert [path.name for path in elsewhere.iterdir()] == ["thesis.txt"]


def test_without_a_hash_program_the_agent_is_copied_again(deployment, places, monkeypatch, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "stat", "id", "cat", "mv", "rm", "mkdir", "cut"):
        (tools / name).symlink_to(shutil.which(name))
    folder = planted(deployment, places[1])
    monkeypatch.setenv("PATH", str(tools))
    assert deployment.folder == str(folder)
    assert (folder / deployment._zip).read_bytes() == deployment._content
