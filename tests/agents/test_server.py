"""``ofa-agent serve`` as a real process: start, access control, and exit."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid

import grpc
import pytest

from ofa_agent.device import cores
from ofa_agent.device.shell import LocalShell
from ofa_agent.measuring.timing import Budget
from ofa_agent.protocol import messages as wire
from ofa_profiler.connections import connect
from ofa_profiler.targets.target import find_target
from ofa_tables.errors import DeviceError, DeviceHeld, ProtocolMismatch

LONG = Budget(warmup_s=0.001, burst_min_s=600.0, burst_max_s=600.0, half_width=0.0)

AGENT_PYTHON = os.environ.get("AGENT_PYTHON") or sys.executable


def call(channel, method, request=b"", metadata=()):
    """Return a gRPC call with raw bytes, independent of our messages."""
    return channel.unary_unary(method)(request, timeout=60, metadata=metadata)


@pytest.fixture
def in_mid_burst(trial_of, eventual):
    """Return a function that makes the worker of an agent time a burst longer than any test."""

    def begin(agent):
        host = agent.host()
        host.welcome()
        host.send(trial=trial_of(budget=LONG))
        host.send(trial=trial_of(budget=LONG))
        eventual(agent.loaded)
        return host

    return begin


def test_it_prints_its_address_on_loopback(tmp_path):
    environment = {**os.environ, "OFA_AGENT_HOME": str(tmp_path)}
    with subprocess.Popen(
        [AGENT_PYTHON, "-m", "ofa_agent", "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as process:
        line = process.stdout.readline()
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert re.fullmatch(r"serving on 127\.0\.0\.1:\d+\n", line)


def test_describe_reports_the_device(agent):
    facts = connect(find_target(f"tcp:{agent.address}")).agent.describe()
    assert facts["protocol"] == wire.PROTOCOL
    asked = subprocess.run([AGENT_PYTHON, "-V"], capture_output=True, text=True, check=True)
    assert asked.stdout.split() == ["Python", facts["python"]]
    assert facts["runtimes"]["steady"] == "1.0"
    assert "onnxruntime" in facts["runtimes"]
    assert facts["missing_runtimes"]["broken"] == "libbroken.so: cannot open shared object file"
    assert facts["chip"]
    assert facts["memory_bytes"] > 1 << 28
    assert sum(len(cluster["cpus"]) for cluster in facts["clusters"]) == os.cpu_count()


def test_a_standard_health_probe_works(agent):
    assert call(agent.channel(), "/grpc.health.v1.Health/Check") == b"\x08\x01"  # SERVING
    service = b"ofa_agent.Agent"
    assert call(agent.channel(), "/grpc.health.v1.Health/Check", b"\x0a" + bytes([len(service)]) + service)
    with pytest.raises(grpc.RpcError) as unknown:
        call(agent.channel(), "/grpc.health.v1.Health/Check", b"\x0a\x05other")
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_can_be_watched(agent):
    watch = agent.channel().unary_stream("/grpc.health.v1.Health/Watch")
    known = watch(b"")
    assert next(known) == b"\x08\x01"
    known.cancel()
    unknown = watch(b"\x0a\x05other")
    assert next(unknown) == b"\x08\x03"  # SERVICE_UNKNOWN
    unknown.cancel()


@pytest.mark.parametrize(("ours", "update"), [(wire.PROTOCOL + 1, "the agent"), (wire.PROTOCOL - 1, "the host")])
def test_a_protocol_mismatch_names_the_side_to_update(agent, monkeypatch, ours, update):
    with pytest.raises(grpc.RpcError) as refused:
        agent.host(protocol=ours).next()
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.details().endswith(f"update {update}")
    monkeypatch.setattr(wire, "PROTOCOL", ours)
    host = connect(find_target(f"tcp:{agent.address}")).agent
    with pytest.raises(ProtocolMismatch, match=f"update {update}"):
        host.describe()
    with pytest.raises(ProtocolMismatch, match=f"update {update}"):
        host.lease("a lease", "a test")


def test_a_stream_without_a_hello_is_refused(agent):
    stream = agent.channel().stream_stream("/ofa_agent.Agent/Measure")
    for messages in ([], [wire.HostMessage(hello=wire.Hello(protocol=wire.PROTOCOL)).SerializeToString()]):
        with pytest.raises(grpc.RpcError) as refused:
            next(stream(iter(messages)))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_second_agent_is_refused_with_one_line_that_names_the_first(agent, run_agent, eventual):
    host = agent.host(holder="ada@laptop (process 7, blocks)")
    host.welcome()
    done = run_agent("serve", home=agent.home)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"process {agent.process.pid} of " in done.stderr
    assert f"on {agent.address}, held by ada@laptop (process 7, blocks)" in done.stderr
    host.done()


def test_the_profiler_reports_the_holder_of_the_device(agent):
    host = agent.host(holder="ada@laptop")
    host.welcome()
    with pytest.raises(DeviceHeld, match="held by ada@laptop since"):
        connect(find_target(f"tcp:{agent.address}")).agent.lease("another lease", "a test")
    host.done()


def test_a_port_in_use_is_reported(run_agent):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_agent("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "the port is in use" in done.stderr
    assert "Traceback" not in done.stderr


WRONG_CALLS = {
    "beyond loopback": (["--host", "0.0.0.0"], "requires a token and TLS"),
    "beyond loopback by name": (["--host", "board.example"], "requires a token and TLS"),
    "beyond loopback with a token alone": (["--host", "0.0.0.0", "--token-file", "FILE"], "requires a token and TLS"),
    "beyond loopback with TLS alone": (
        ["--host", "0.0.0.0", "--tls-cert", "FILE", "--tls-key", "FILE"],
        "requires a token and TLS",
    ),
    "a certificate without its key": (["--tls-cert", "FILE"], "require each other"),
    "a key without its certificate": (["--tls-key", "FILE"], "require each other"),
    "an empty token": (["--token-file", "/dev/null"], "token is empty"),
    "no such flag": (["--tokn-file", "FILE"], "unrecognized arguments"),
}


@pytest.mark.parametrize(("flags", "said"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_usage_error_has_exit_code_2(run_agent, tmp_path, flags, said):
    file = tmp_path / "file"
    file.write_text("secret")
    done = run_agent("serve", *[str(file) if flag == "FILE" else flag for flag in flags])
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_named(run_agent):
    done = run_agent("serve", "--token-file", "/no/such/token")
    assert done.returncode == 1
    assert done.stderr == "error: /no/such/token: No such file or directory\n"


def test_a_host_without_the_token_is_refused(start_agent, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text("s3cret\n")
    agent = start_agent("--token-file", str(token_file), token="s3cret")
    measure = agent.channel().stream_stream("/ofa_agent.Agent/Measure")
    for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "s3cret"),)):
        with pytest.raises(grpc.RpcError) as refused:
            call(agent.channel(), "/ofa_agent.Agent/Describe", metadata=metadata)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as refused:
            next(measure(iter([b""]), metadata=metadata))
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(DeviceError, match="token-file"):
        connect(find_target(f"tcp:{agent.address}")).agent.describe()
    assert call(agent.channel(), "/grpc.health.v1.Health/Check") == b"\x08\x01"
    with connect(find_target(f"tcp:{agent.address}", {"token-file": str(token_file)})) as connection:
        assert connection.agent.describe()["agent_version"]
    host = agent.host()
    host.welcome()
    host.done()


def test_beyond_loopback_it_serves_with_token_and_tls(start_agent, tmp_path, trial_of):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    token, certificate, key = (tmp_path / name for name in ("token", "cert.pem", "key.pem"))
    token.write_text("s3cret")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=board"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    flags = ["--host", "0.0.0.0", "--token-file", token, "--tls-cert", certificate, "--tls-key", key]
    agent = start_agent(*map(str, flags))
    assert agent.address.startswith("0.0.0.0:")
    target = f"tcp:127.0.0.1:{agent.address.rpartition(':')[2]}"
    settings = {"token-file": str(token), "tls-ca": str(certificate)}
    with connect(find_target(target, settings)) as connection:
        assert connection.agent.describe()["runtimes"]["steady"] == "1.0"
        trials = iter([trial_of()])
        with connection.agent.lease("a lease", "a test") as lease:
            for measurement in lease.measure(lambda: next(trials, None), {}):
                assert measurement.status == "ok"
                lease.acknowledge([measurement.trial_id])
    with connect(find_target(target, {"token-file": str(token)})) as plain, pytest.raises(DeviceError):
        plain.agent.describe()


def test_the_token_can_come_from_standard_input_that_also_ends_the_agent(start_agent):
    agent = start_agent("--token-stdin", "--end-with-stdin", token="s3cret")
    with pytest.raises(grpc.RpcError):
        call(agent.channel(), "/ofa_agent.Agent/Describe")
    host = agent.host()
    host.welcome()
    host.done()
    agent.process.stdin.close()
    assert agent.process.wait(timeout=60) == 0


def test_it_exits_after_the_linger_time_without_a_lease(start_agent, living):
    agent = start_agent("--linger", "1.0")
    host = agent.host()
    host.welcome()
    with pytest.raises(subprocess.TimeoutExpired):
        agent.process.wait(timeout=2.0)
    host.done()
    assert agent.process.wait(timeout=60) == 0
    assert living(agent.home) == []


def test_it_exits_when_standard_input_closes_even_during_a_burst(start_agent, in_mid_burst, living, eventual):
    agent = start_agent("--end-with-stdin")
    in_mid_burst(agent)
    agent.process.stdin.close()
    assert agent.process.wait(timeout=60) == 0
    eventual(lambda: living(agent.home) == [])
    assert len(agent.loaded()) == 1, "a waiting trial was started"
    assert not (agent.home / "models").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_worker(start_agent, in_mid_burst, living, eventual, number):
    agent = start_agent()
    in_mid_burst(agent)
    assert len(agent.workers) == 1
    agent.process.send_signal(number)
    assert agent.process.wait(timeout=60) == 0
    eventual(lambda: living(agent.home) == [])


def test_a_killed_agent_ends_its_worker_and_frees_the_device(start_agent, in_mid_burst, living, eventual):
    agent = start_agent()
    in_mid_burst(agent)
    agent.process.kill()
    agent.process.wait()
    eventual(lambda: living(agent.home) == [])
    assert start_agent("--lock-wait", "10", home=agent.home).address


# The other commands.


def test_info_prints_a_json_object(run_agent):
    done = run_agent("info", "--json")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert set(facts) == {field.name for field in wire.Description.DESCRIPTOR.fields}
    assert "onnxruntime" in facts["runtimes"]


INFO_OF_A_WARM_DEVICE = """
import sys
import uuid
from ofa_agent import __main__
from ofa_agent.device import description as device
describe = device.describe
def warm(*arguments):
    description = describe(*arguments)
    description.chip = "Geräteträger"
    description.condition.temperatures_c["CPU"] = 41.5
    return description
device.describe = warm
sys.exit(__main__.main(["info"]))
"""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_info_is_readable_on_every_terminal(run_agent, encoding):
    done = run_agent(
        python=(AGENT_PYTHON, "-c", INFO_OF_A_WARM_DEVICE), env={"PYTHONIOENCODING": encoding}, encoding=encoding
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^runtimes +.*\bonnxruntime ", done.stdout, re.MULTILINE)
    assert re.search(r"^hottest +41.5 .*C$", done.stdout, re.MULTILINE)


def test_without_a_command_it_prints_help(run_agent):
    done = run_agent()
    assert done.returncode == 2
    assert "serve" in done.stderr


def test_a_host_is_warned_of_a_precision_that_the_processor_lacks(start_agent, monkeypatch):
    if cores.has_fp16(LocalShell()) is not False:
        pytest.skip("this processor computes in fp16, or does not say")
    settings = wire.Settings(runtime="tflite", precision="fp16", threads=1, batch=1)
    connection = connect(find_target(f"tcp:{start_agent().address}"))
    with connection, connection.agent.lease(uuid.uuid4().hex, "a test", settings=settings) as lease:
        assert lease.warnings == [
            "this processor does not compute in fp16: TFLite stores the weights in fp16 and computes in fp32"
        ]
