"""A board with another processor: an aarch64 Debian under qemu, which has Python and nothing else of what we need.

Its times mean nothing; that the agent, the wheels and the protocol work there is what is shown.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 1800

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]


@pytest.fixture(scope="module")
def user_land():
    """Made once, then kept under build/."""
    folder = REPOSITORY / "build" / "aarch64"
    if not (folder / "usr" / "bin" / "python3").exists():
        if shutil.which("debootstrap") is None:
            pytest.skip("debootstrap is not installed")
        shutil.rmtree(folder, ignore_errors=True)
        words = ("debootstrap", "--arch=arm64", "--variant=minbase", "--include=python3", "bookworm", folder)
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no aarch64 user land can be made here: {done.stdout.strip().splitlines()[-1]}")
    ran = subprocess.run(["chroot", str(folder), "/usr/bin/python3", "-V"], capture_output=True, text=True)
    if ran.returncode:
        pytest.skip("this kernel does not run aarch64 programs; install qemu-user-static and binfmt-support")
    return folder


def test_a_board_without_internet_is_provisioned_and_measured(make_board, host, user_land):
    board = make_board(python=None, user_land=user_land)
    host.knows(board)
    host.binds("raspberry-pi-4", f"{board.user}@{board.address}")
    lacking = host("ofa-targets", "check", "raspberry-pi-4")
    assert lacking.returncode == 1
    assert "lacks grpcio, protobuf, numpy and onnxruntime" in " ".join(lacking.stderr.split())
    provisioned = host("ofa-targets", "provision", "raspberry-pi-4", timeout_s=PATIENCE_S)
    assert provisioned.returncode == 0, provisioned.stderr
    assert "has onnxruntime and all that the agent needs" in provisioned.stdout
    space = ("--space", "compofa-fixed-w1.0", "--resolutions", "128", "--effort", "quick")
    done = host("ofa-profile", "--target", "raspberry-pi-4", *space, "--json", timeout_s=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    reported = json.loads(done.stdout.splitlines()[-1])
    assert (reported["entries"], reported["measured"], reported["failed"]) == (36, 36, 0)
    shown = host("ofa-table", "show", reported["table"], "--json")
    assert json.loads(shown.stdout.splitlines()[-1])["entries"] == 36
    assert host("ofa-targets", "clean", "raspberry-pi-4").returncode == 0
