"""What ``~/.ssh/config`` makes of an address, and what a device must install."""

import json

import pytest

from ofa_agent.device.shell import Ran
from ofa_profiler.connections.adb.phone import ADVICE
from ofa_profiler.connections.deploy import Deployment
from ofa_profiler.connections.provision import platform_tags
from ofa_profiler.connections.ssh.login import login_of
from ofa_tables.errors import DeviceError, FileError, UsageError


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()

    def write(text, name="config"):
        (tmp_path / ".ssh" / name).write_text(text)
        (tmp_path / ".ssh" / name).chmod(0o600)  # OpenSSH refuses files that others can write

    return write


def test_an_address_alone(config):
    login = login_of("nvidia@10.0.0.5:2200")
    assert (login.user, login.host, login.port, login.via) == ("nvidia", "10.0.0.5", 2200, None)
    assert login.known_as == "[10.0.0.5]:2200"
    assert str(login_of("nvidia@10.0.0.5")) == "nvidia@10.0.0.5"


def test_the_config_completes_it_and_the_address_has_the_last_word(config):
    config("Host tx2\n  HostName 10.0.0.5\n  User nvidia\n  Port 2200\n  IdentityFile ~/.ssh/lab\n")
    login = login_of("tx2")
    assert (login.user, login.host, login.port) == ("nvidia", "10.0.0.5", 2200)
    assert [key.rpartition("/")[2] for key in login.keys] == ["lab"]
    assert (login_of("root@tx2:22").user, login_of("root@tx2:22").port) == ("root", 22)


def test_jumps_go_through_one_another(config):
    config("Host tx2\n  HostName 10.0.0.5\n  ProxyJump anna@outer,inner:2222\nHost inner\n  HostName 192.168.0.1\n")
    login = login_of("tx2")
    assert (login.via.host, login.via.port) == ("192.168.0.1", 2222)
    assert (login.via.via.user, login.via.via.host) == ("anna", "outer")


def test_included_files_count(config):
    config("Include more\n")
    config("Host tx2\n  HostName 10.0.0.5\n", "more")
    assert login_of("tx2").host == "10.0.0.5"


def test_a_jump_through_itself(config):
    config("Host tx2\n  ProxyJump tx2\n")
    with pytest.raises(FileError, match="refers to itself"):
        login_of("tx2")


@pytest.mark.parametrize("address", ["", "a b", "nvidia@", "nvidia@host:port"])
def test_something_that_is_not_an_address(config, address):
    with pytest.raises(UsageError, match="is not an address"):
        login_of(address)


def test_wheels_for_a_tx2():
    tags = platform_tags("aarch64", "glibc-2.27")
    assert tags[0] == "manylinux_2_27_aarch64"
    assert "manylinux2014_aarch64" in tags
    assert "manylinux_2_28_aarch64" not in tags


def test_a_board_without_glibc():
    with pytest.raises(DeviceError, match="wheels exist for glibc"):
        platform_tags("aarch64", "musl-1.2")


class Told:
    """A Link to a device that is asked for little; ``pythons`` is what its Pythons say of themselves."""

    def __init__(self, *pythons):
        self.pythons = pythons
        self.removed = 0

    def run(self, script, *lines, payload=b"", timeout_s=0.0):
        if "uname" in script:
            return Ran(0, "/home/me\n1000\naarch64")
        if " probe " in script:
            return Ran(0, "\n".join(self.pythons))
        self.removed += "rm -rf" in script
        return Ran(0, "")


def python(version, *runtimes):
    facts = {"python": f"{version}.1", "executable": f"/usr/bin/python{version}", "tag": "cp", "machine": "aarch64"}
    return json.dumps({**facts, "libc": "glibc-2.31", "missing": [], "runtimes": runtimes})


@pytest.mark.parametrize(("version", "package"), [("3.12", "ai-edge-litert"), ("3.8", "tflite-runtime")])
def test_a_runtime_is_installed_by_the_name_that_pip_knows_for_that_python(version, package):
    board = Deployment(Told(python(version)), "pi")
    (found,) = board.pythons()
    assert found.requirements(["tflite"]) == found.requirements(["tflite-gpu"]) == [package]
    with pytest.raises(DeviceError, match=rf"lacks tflite; install there with .* --user {package}, or from here with"):
        board.choose(["tflite"])


@pytest.mark.parametrize(("version", "package"), [("3.12", "openvino"), ("3.9", "openvino==2025.3.0")])
def test_openvino_is_installed_in_a_version_for_that_python(version, package):
    (found,) = Deployment(Told(python(version)), "pi").pythons()
    assert found.requirements(["openvino"]) == found.requirements(["openvino-npu"]) == [package]


def test_a_way_to_use_a_runtime_needs_the_runtime():
    board = Deployment(Told(python("3.12", "tflite")), "pi")
    assert board.choose(["tflite-gpu"]).runtimes == ("tflite",)
    with pytest.raises(DeviceError, match=r"lacks torch; .*--user torch,"):
        board.choose(["torch-script"])


def test_packages_are_not_installed_on_a_phone():
    with pytest.raises(DeviceError, match=r"lacks tflite; .* --user ai-edge-litert$"):
        Deployment(Told(python("3.12")), "pixel-1", advice=ADVICE).choose(["tflite"])
    with pytest.raises(DeviceError, match="such as pkg install python in Termux"):
        Deployment(Told(), "pixel-1", advice=ADVICE).choose(["tflite"])


def test_a_device_without_python_can_be_cleaned():
    link = Told()
    phone = Deployment(link, "pixel-1", advice=ADVICE)
    assert not phone.end()
    assert phone.remove()
    assert link.removed
