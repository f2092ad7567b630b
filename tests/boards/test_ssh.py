"""A board over SSH: from its address to a table, and what happens to the link on the way."""

import json
import shutil
import sqlite3
import time

import pytest
from model_files import conv_onnx

SPACE = ("--space", "compofa-fixed-w1.0", "--resolutions", "128", "--effort", "quick")


def profile(*more, target="jetson-tx2"):
    return ("ofa-profile", "--target", target, *SPACE, "--out", "t.lut", "--json", *more)


def answer(done):
    return json.loads(done.stdout.splitlines()[-1])


def trials(host):
    with sqlite3.connect(host.folder / "t.lut") as table:
        return table.execute("SELECT key, round, count(*) FROM measurements GROUP BY trial_id").fetchall()


@pytest.fixture
def bound(board, host):
    """A host that knows the board as jetson-tx2."""
    host.knows(board)
    host.binds("jetson-tx2", f"{board.user}@{board.address}")
    return host


@pytest.fixture
def sleeps(board, host, install_sleeping):
    """Install the runtimes that sleep on the host and on the board."""
    install_sleeping(board.home / ".cache" / "ofa-profile" / "packages")
    host.environment["PYTHONPATH"] = str(install_sleeping(host.home / "plugins"))


def test_a_command_runs_on_the_board(board, host):
    host.knows(board)
    host.binds("jetson-tx2", f"{board.user}@{board.address}", runtimes=["command:count"])
    with (host.folder / "targets.toml").open("a") as file:
        file.write("[command.count]\nmodel = 'onnx'\nrun = ['wc', '-c', '{model}']\n")
        file.write("latency = { regex = '^([0-9]+)', unit = 'ns' }\n")
    done = host("ofa-targets", "check", "jetson-tx2")
    assert done.returncode == 0, done.stderr
    assert "by command:count, fp32" in done.stderr


def test_from_an_address_to_a_table_and_back_to_an_empty_board(board, bound):
    done = bound(*profile())
    assert done.returncode == 0, done.stderr
    reported = answer(done)
    assert (reported["entries"], reported["measured"], reported["failed"]) == (36, 36, 0)
    assert reported["target"] == "jetson-tx2"
    assert len(list((board.home / ".cache" / "ofa-profile").glob("ofa-agent-*.pyz"))) == 1
    assert board.processes()  # it waits for the next command
    cleaned = bound("ofa-targets", "clean", "jetson-tx2")
    assert cleaned.returncode == 0, cleaned.stderr
    assert "the agent was ended; removed" in cleaned.stdout
    assert not board.processes()
    assert not (board.home / ".cache" / "ofa-profile").exists()
    again = bound("ofa-targets", "clean", "jetson-tx2")
    assert "no agent served there; removed nothing" in again.stdout


def test_a_model_file_is_profiled_on_the_board(board, bound):
    conv_onnx(bound.folder / "mine.onnx")
    done = bound("ofa-profile", "--target", "jetson-tx2", "--effort", "quick", "--model", "mine.onnx", "--json")
    assert done.returncode == 0, done.stderr
    (model,) = answer(done)["models"]
    assert (model["target"], model["runtime"]) == ("jetson-tx2", "onnxruntime")
    assert model["latency_ms"] > 0
    assert model["peak_mb"] is None or model["peak_mb"] > 0
    assert {layer["operator"] for layer in model["layers"]} >= {"Conv", "Gemm"}
    assert len(list((board.home / ".cache" / "ofa-profile").glob("*.pyz"))) == 1  # nothing else was put there


def test_the_next_command_finds_the_agent_that_the_last_one_left(board, bound):
    assert bound("ofa-targets", "check", "jetson-tx2").returncode == 0
    agents = set(board.processes())
    assert bound("ofa-targets", "check", "jetson-tx2").returncode == 0
    assert set(board.processes()) == agents


def test_an_address_needs_no_file(board, host):
    host.knows(board)
    done = host("ofa-targets", "check", f"{board.user}@{board.address}")
    assert done.returncode == 0, done.stderr
    assert "ok time a network" in done.stderr


def test_a_host_of_the_ssh_config(board, host):
    host.knows(board)
    key = (host.ssh / "id_ed25519").rename(host.ssh / "lab_key")
    (host.ssh / "conf.d").mkdir()
    (host.ssh / "config").write_text("Include conf.d/*\n")
    (host.ssh / "conf.d" / "lab").write_text(
        f"Host tx2\n  HostName {board.address}\n  User {board.user}\n  IdentityFile {key}\n"
    )
    host.binds("jetson-tx2", "tx2")
    done = host("ofa-targets", "check", "jetson-tx2")
    assert done.returncode == 0, done.stderr


def test_a_board_behind_a_gate(board, host):
    """What is 127.0.0.1 to the gate is reached by way of it; here there is nothing at that port."""
    host.knows(board)
    host.knows(board, "127.0.0.1")
    (host.ssh / "config").write_text(
        f"Host gate\n  HostName {board.address}\nHost tx2\n  HostName 127.0.0.1\n  ProxyJump gate\n"
        f"Host *\n  User {board.user}\n"
    )
    host.binds("jetson-tx2", "tx2")
    done = host("ofa-targets", "check", "jetson-tx2")
    assert done.returncode == 0, done.stderr


def test_a_password(board, host):
    host.knows(board)
    (host.ssh / "id_ed25519").unlink()
    host.binds("jetson-tx2", f"{board.user}@{board.address}")
    refused = host("ofa-targets", "check", "jetson-tx2")
    assert refused.returncode == 1
    assert "refused the login of nvidia" in refused.stderr
    assert "--set password-file=FILE" in refused.stderr
    (host.folder / "password").write_text(board.password + "\n")
    done = host("ofa-targets", "check", "jetson-tx2", "--set", "password-file=password")
    assert done.returncode == 0, done.stderr


def test_an_unknown_host_key_is_refused_with_the_command_that_adds_it(board, host):
    host.binds("jetson-tx2", f"{board.user}@{board.address}")
    done = host("ofa-targets", "check", "jetson-tx2")
    assert done.returncode == 1
    assert "is not known yet: ssh-ed25519 SHA256:" in done.stderr
    command = f"ssh-keyscan -t ed25519 {board.address} >> {host.ssh}/known_hosts"
    assert command in " ".join(done.stderr.split())


def test_a_changed_host_key(board, bound):
    other = (bound.ssh / "id_ed25519.pub").read_text().split()
    (bound.ssh / "known_hosts").write_text(f"{board.address} {other[0]} {other[1]}\n")
    done = bound("ofa-targets", "check", "jetson-tx2")
    assert done.returncode == 1
    assert (
        f"has changed; if the board was set up again, remove the old key with ssh-keygen -R '{board.address}'"
        in " ".join(done.stderr.split())
    )


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nvidia@{address}:2222", "nothing answers at {address} port 2222"),
        ("nvidia@no-such-board.invalid", "no host is called no-such-board.invalid"),
        ("nobody-there@{address}", "refused the login of nobody-there"),
        ("nvidia@{address}:port", "is not an address"),
    ],
)
def test_a_wrong_address(board, host, address, words):
    host.knows(board)
    host.knows(board, f"[{board.address}]:2222")
    host.binds("jetson-tx2", address.format(address=board.address))
    done = host("ofa-targets", "check", "jetson-tx2")
    assert done.returncode in (1, 2)
    assert words.format(address=board.address) in " ".join(done.stderr.split())


def test_a_board_that_is_off(board, bound):
    board.cut()
    begin = time.monotonic()
    done = bound("ofa-targets", "check", "jetson-tx2")
    assert done.returncode == 1
    assert "is the board on" in done.stderr
    assert time.monotonic() - begin < 60


def test_a_target_without_an_address(host):
    done = host("ofa-targets", "check", "jetson-nano")
    assert done.returncode == 2
    assert "jetson-nano has no address yet; write it into ./targets.toml" in done.stderr


def test_no_python(make_board, host):
    board = make_board(python=None)
    board.hide("/usr/bin/python3*")
    host.knows(board)
    done = host("ofa-targets", "check", f"{board.user}@{board.address}")
    assert done.returncode == 1
    assert "has no Python that the agent runs on" in done.stderr


def test_a_python_that_is_too_old(make_board, host):
    board = make_board(python=None)
    (board.bin / "python3.5").write_text(
        "#!/bin/sh\necho 'error: the agent needs Python 3.6 or later, this is 3.5.2' >&2\nexit 1\n"
    )
    (board.bin / "python3.5").chmod(0o755)
    host.knows(board)
    done = host("ofa-targets", "check", f"{board.user}@{board.address}", "--set", "python=python3.5")
    assert done.returncode == 1
    assert "the agent needs Python 3.6 or later, this is 3.5.2" in done.stderr


def test_missing_packages_are_listed_with_the_install_command(make_board, host, pythons):
    if "3.6" not in pythons:
        pytest.skip("no Python 3.6 was found")
    board = make_board(python=pythons["3.6"], name="python3.6")
    board.hide("/usr/bin/python3*")
    host.knows(board)
    host.binds("jetson-tx2", f"{board.user}@{board.address}")
    done = host("ofa-targets", "check", "jetson-tx2")
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "lacks grpcio, protobuf, numpy and onnxruntime" in said
    assert "-m pip install --user grpcio==1.48.2 protobuf==3.19.6 numpy==1.19.5 onnxruntime==1.10.0" in said
    assert "ofa-targets provision jetson-tx2" in said


def test_provision_installs_missing_packages_from_the_host(make_board, host, pythons):
    """On the oldest Python, without its pip; then the board has all that it takes to be measured."""
    if "3.6" not in pythons:
        pytest.skip("no Python 3.6 was found")
    board = make_board(python=pythons["3.6"], name="python3.6")
    board.hide("/usr/bin/python3*")
    host.knows(board)
    host.binds("jetson-tx2", f"{board.user}@{board.address}")
    done = host("ofa-targets", "provision", "jetson-tx2")
    assert done.returncode == 0, done.stderr
    assert "Python 3.6" in done.stdout
    assert host("ofa-targets", "check", "jetson-tx2").returncode == 0
    again = host("ofa-targets", "provision", "jetson-tx2")
    assert "has everything already" in again.stderr


def test_a_full_disk(make_board, host):
    board = make_board(full=True)
    host.knows(board)
    done = host("ofa-targets", "check", f"{board.user}@{board.address}")
    assert done.returncode == 1
    assert "has no place for the agent" in done.stderr
    assert "No space left on device" in done.stderr


def test_a_home_that_cannot_be_written(make_board, host):
    board = make_board(read_only_home=True)
    host.knows(board)
    done = host("ofa-targets", "check", f"{board.user}@{board.address}")
    assert done.returncode == 0, done.stderr
    assert "ok deploy: /var/tmp/ofa-profile-0" in done.stderr


def test_scratch_folders_that_nothing_may_be_run_from(make_board, host):
    board = make_board(noexec=True)
    host.knows(board)
    done = host("ofa-targets", "check", f"{board.user}@{board.address}")
    assert done.returncode == 0, done.stderr


def test_a_login_shell_that_talks(board, bound):
    (board.home / ".bashrc").write_text("echo Welcome to the lab\necho 'Unread mail!' >&2\n")
    done = bound("ofa-targets", "check", "jetson-tx2")
    assert done.returncode == 0, done.stderr


def test_fish(make_board, host):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    board = make_board(shell="/usr/bin/fish")
    host.knows(board)
    done = host("ofa-targets", "check", f"{board.user}@{board.address}")
    assert done.returncode == 0, done.stderr


def test_a_link_that_is_cut_twice_and_a_board_that_is_killed(board, bound, eventual, sleeps):
    process = bound.start(*profile("--runtime", "by-macs", "--effort", "thorough"))
    try:
        for wanted, harm in ((20, "cut"), (60, "kill"), (20, "cut")):
            eventual(lambda wanted=wanted: board.measured() > wanted or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            if harm == "cut":
                board.cut()
                time.sleep(14)  # the host notices it within 12 s
                board.fix()
            else:
                board.kill()
                time.sleep(1)
                board.start()
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["measured"] == 36
    assert all(count == 1 for *_, count in trials(bound))
    assert err.count("jetson-tx2 is there again") >= 2
    assert "the agent on jetson-tx2 does not answer" in err
    assert "trying again in" in err


@pytest.mark.slow  # needs the machine to itself, to measure the waiting time
def test_a_slow_link_leaves_the_board_nothing_to_wait_for(board, host, relay, sleeps):
    slow = relay(board.address, delay_s=0.05)
    host.knows(board, f"[127.0.0.1]:{slow.port}")
    done = host(*profile("--runtime", "steady-4ms", target=f"{board.user}@127.0.0.1:{slow.port}"))
    assert done.returncode == 0, done.stderr
    reported = answer(done)
    assert reported["measured"] == 36
    assert reported["waited_seconds"] <= 0.01 * reported["timed_seconds"]


def test_a_table_costs_little_traffic(board, host, relay, sleeps):
    counted = relay(board.address)
    host.knows(board, f"[127.0.0.1]:{counted.port}")
    target = f"{board.user}@127.0.0.1:{counted.port}"
    done = host(
        *("ofa-profile", "--target", target, "--runtime", "by-macs", "--resolutions", "160", "--effort", "quick"),
        *("--out", "t.lut", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert answer(done)["measured"] == 96
    assert counted.bytes <= 2_000_000


@pytest.mark.slow  # other tests show each step
def test_the_same_jetson_from_its_block_to_a_found_network(make_board, host, python36):
    board = make_board(python=python36, name="python3.6")
    board.hide("/usr/bin/python3*")
    host.knows(board)
    host.binds("jetson-tx2", f"{board.user}@{board.address}")
    done = host("ofa-profile", "--target", "jetson-tx2", "--resolutions", "160", "--effort", "quick", "--json")
    assert done.returncode == 0, done.stderr
    reported = answer(done)
    assert (reported["entries"], reported["measured"], reported["failed"]) == (96, 96, 0)
    assert reported["table"] == "jetson-tx2-onnxruntime-fp32-t1-b1.lut"
    compared = host("ofa-compare", "--table", reported["table"], "--networks", "2", "--calibrate", "4", "--json")
    assert compared.returncode == 0, compared.stderr
    assert answer(compared)["networks"] == 2
    limit = ("--max-latency-ms", "1000", "--generations", "2")
    found = host("ofa-search", "--table", reported["table"], "--space", "ofa-mbv3-w1.0", *limit, "--json")
    assert found.returncode == 0, found.stderr
    assert answer(found)["predicted_latency_ms"] <= 1000


@pytest.mark.slow  # waits until the agent ends, 45 s after its host
def test_a_second_host_sees_the_holder_and_gets_the_board_when_it_is_free(board, bound, make_host, eventual):
    bob = make_host("bob")
    bob.knows(board)
    bob.binds("jetson-tx2", f"{board.user}@{board.address}")
    process = bound.start(*profile("--effort", "thorough"))
    eventual(lambda: board.measured() > 5)
    refused = bob(*profile())
    assert refused.returncode == 1
    assert "held by alice@" in refused.stderr
    assert "since 2" in refused.stderr
    process.kill()
    process.wait()
    begin = time.monotonic()
    done = bob(*profile())
    assert done.returncode == 0, done.stderr
    assert "waiting for that agent to end" in done.stderr
    assert answer(done)["seconds"] < 90
    ended = eventual(lambda: not board.processes() and time.monotonic(), patience_s=90)
    assert ended - begin < 200
