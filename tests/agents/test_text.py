"""Text of strangers cannot change a terminal or forge a message."""

import json
import os
import shutil
import subprocess

import grpc
import pytest

from ofa_agent.measuring.timing import Budget
from ofa_agent.measuring.worker import take_trial
from ofa_agent.service import lock
from ofa_agent.text import one_line
from ofa_profiler.connections import client
from ofa_profiler.connections.process import AgentProcess
from ofa_tables.errors import DeviceError, DeviceHeld

EVIL = "ada\x1b[2J\x1b]0;title\x07\nerror: your key has expired\r\u202e\x9b31m"


def test_one_line_is_printable():
    assert one_line(EVIL) == "ada [2J ]0;title error: your key has expired 31m"
    assert one_line("Geräteträger µs") == "Geräteträger µs"
    assert one_line("x" * 100, 10) == "x" * 8 + " …"


def test_the_name_of_a_holder_is_one_printable_line(agent):
    host = agent.host(holder=EVIL)
    host.welcome()
    with pytest.raises(grpc.RpcError) as refused:
        agent.host().next()
    host.done()
    assert refused.value.details().isprintable()
    assert "\\u001b" not in agent.log


def test_the_lock_file_is_shown_as_one_printable_line(tmp_path, monkeypatch):
    monkeypatch.setenv("OFA_AGENT_HOME", str(tmp_path))
    held = lock.DeviceLock.acquire()
    held.announce(holder=EVIL, address=EVIL, user=EVIL)
    with pytest.raises(lock.DeviceBusy) as busy:
        lock.DeviceLock.acquire()
    os.close(held.descriptor)
    assert str(busy.value).isprintable()


class Refused(grpc.RpcError):
    def code(self):
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self):
        return EVIL


def test_the_profiler_shows_the_refusal_of_an_agent_as_one_printable_line():
    error = client.typed(Refused(), "board")
    assert isinstance(error, DeviceHeld)
    assert str(error).isprintable()


def test_an_error_of_a_runtime_is_one_printable_line(trial_of, monkeypatch):
    def fail(*arguments):
        raise ValueError(EVIL)

    monkeypatch.setattr("ofa_agent.runtimes.find", fail)
    measurement = take_trial(trial_of(), "")
    assert measurement.status == "crashed"
    assert measurement.error.isprintable()


# Ports and certificates.


@pytest.mark.parametrize("port", ["-1", "70000"])
def test_a_number_that_is_no_port_gives_one_line(run_agent, port):
    done = run_agent("serve", "--port", port)
    assert done.returncode == 2
    assert done.stderr == f"error: --port {port} is not a port; use 1 to 65535, or 0 for a free port\n"


def openssl(*arguments):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with a certificate, its key, another key, a key with a passphrase, and a text."""
    folder = tmp_path_factory.mktemp("keys")
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=board"),
        *("-keyout", folder / "key", "-out", folder / "certificate"),
    )
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", folder / "other")
    openssl("pkey", "-in", folder / "key", "-aes256", "-passout", "pass:secret", "-out", folder / "locked")
    (folder / "text").write_text("no PEM")
    return folder


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("text", "key", "text is not a certificate in PEM format"),
        ("key", "key", "key is not a certificate in PEM format"),
        ("certificate", "text", "text is not a private key in PEM format"),
        ("certificate", "other", "does not belong to the certificate"),
        ("certificate", "locked", "has a passphrase"),
    ],
)
def test_a_bad_certificate_is_named(run_agent, keys, certificate, key, said):
    done = run_agent("serve", "--tls-cert", str(keys / certificate), "--tls-key", str(keys / key))
    assert done.returncode == 2
    assert said in done.stderr
    assert "in use" not in done.stderr
    assert done.stderr.count("\n") == 1


# Files.


def fake_agent(tmp_path):
    script = tmp_path / "agent"
    script.write_text(f"#!/bin/sh\nread token\necho '{json.dumps({'address': '127.0.0.1:1'})}'\n")
    script.chmod(0o700)
    return [str(script)]


def test_only_its_user_can_read_the_log_of_an_agent(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "agent.log").touch(mode=0o644)
    process = AgentProcess(fake_agent(tmp_path), home)
    process.start("local")
    process.end()
    assert (home / "agent.log").stat().st_mode & 0o777 == 0o600


def test_the_log_of_an_agent_is_not_written_through_a_link(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    other = tmp_path / "other"
    other.write_text("precious")
    (home / "agent.log").symlink_to(other)
    with pytest.raises(DeviceError, match=r"agent\.log: cannot write the log"):
        AgentProcess(fake_agent(tmp_path), home).start("local")
    assert other.read_text() == "precious"


def test_files_of_a_killed_worker_are_removed(start_agent, trial_of, small_model, tmp_path):
    long = Budget(warmup_s=600.0, burst_min_s=600.0, burst_max_s=600.0, half_width=0.0)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    agent = start_agent(environment={"TMPDIR": str(temporary)})
    host = agent.host()
    host.welcome()
    trial = trial_of("onnxruntime", budget=long, model_id=small_model.model_id, timeout_s=2.0)
    trial.job.parts.add(key="all", operators=len(trial.job.operators))
    assert host.take(trial, small_model).status == "timed-out"
    assert host.take(trial_of()).status == "ok"
    scratch = agent.home / "models" / "scratch"
    assert [path for folder in (temporary, scratch) for path in folder.glob("tmp*")] == []
    host.done()
