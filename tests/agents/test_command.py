"""Trials with a command line tool, through a running agent. The tool is a script that takes its behaviour as a flag."""

import json
import os
import signal
import sys
import time
import tomllib

import pytest

from ofa_agent import operators as ops
from ofa_agent.commands.template import parse
from ofa_agent.operators import concatenate
from ofa_agent.protocol import messages as wire
from ofa_profiler.campaign.decoding import latency_ms
from ofa_profiler.lowering import lower
from ofa_profiler.targets.commands import shipped

TOOL = r'''#!{python}
"""A tool that times a model: it prints a latency, and writes its arguments and the times of three layers."""
import json, os, sys, time
folder, behaviour, *rest = sys.argv[1:]
with open(os.path.join(folder, "calls"), "a") as file:
    file.write(json.dumps([behaviour] + rest) + "\n")
if behaviour == "version":
    print("tool 3.14")
elif behaviour == "samples":
    print("run 1: 4000 us\nrun 2: 6000 us\nrun 3: 5000 us")
elif behaviour == "fail":
    print("loading\nno such device\n")
    sys.exit(3)
elif behaviour == "memory":
    sys.exit("RuntimeError: out of memory")
elif behaviour == "silent":
    print("done")
elif behaviour == "sleep":
    print("waiting", os.getpid(), flush=True)
    with open(os.path.join(folder, "pid"), "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
elif behaviour == "layers":
    print("median 6 ms")
    layers = [("Reorder for operator0", 1.0), ("operator0", 2.0), ("operator2 + operator3", 2.5), ("copy", 0.5)]
    with open(os.path.join(rest[0], "layers.json"), "w") as file:
        json.dump([{"count": 9}] + [dict(layer=name, ms=ms) for name, ms in layers], file)
elif behaviour == "convert":
    with open(rest[0], "rb") as model, open(rest[1], "wb") as converted:
        converted.write(b"converted:" + model.read(4))
elif behaviour == "read":
    size = os.path.getsize(rest[0])
    with open(rest[0], "rb") as file:
        print("first bytes %r" % file.read(20))
    print("median %d ms" % size)
'''
MEDIAN = {"regex": r"^median (\d+) ms", "unit": "ms", "statistic": "median"}
LAYERS = {"file": "layers.json", "json": "[*].ms", "name": "layer", "unit": "ms"}
FIRST = ops.Block("first", (8, 6, 6), (ops.Conv(8, 8, 3), ops.Activation("relu")))
SECOND = ops.Block("second", (8, 6, 6), (ops.Conv(8, 8, 3), ops.Activation("relu")))
LARGE = [ops.Block(key, (64, 32, 32), (ops.Conv(64, 64, 3), ops.Activation("relu"))) for key in ("first", "second")]


@pytest.fixture(scope="module")
def agent_flags():
    return ("--allow-commands",)


@pytest.fixture
def tool(tmp_path):
    path = tmp_path / "a tool"
    path.write_text(TOOL.replace("{python}", sys.executable))
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def calls(tmp_path):
    """The calls of the tool so far: its arguments."""
    return lambda: [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


@pytest.fixture
def template(tool, tmp_path):
    """The JSON text of a template that runs the tool with a behaviour and further arguments."""

    def make(behaviour, *arguments, **more):
        values = {"run": [tool, str(tmp_path), behaviour, *arguments, "{model}"], "model": "onnx", "latency": MEDIAN}
        return parse("mine", {**values, **more}).text

    return make


@pytest.fixture
def take(host, trial_of, small_model, small_block):
    def run(command, **settings):
        trial = trial_of("command:mine", block=small_block, model_id=small_model.model_id, command=command, **settings)
        return host.take(trial, small_model)

    return run


def test_samples_are_kept(take, template):
    latency = {"regex": r"run \d: (\d+) us", "unit": "us", "statistic": "samples"}
    measurement = take(template("samples", latency=latency))
    assert measurement.status == "ok", measurement.error
    assert list(measurement.samples_ns) == [4_000_000, 6_000_000, 5_000_000]
    assert (measurement.power_w, measurement.warm, measurement.narrow) == (0.0, True, True)


def test_a_median_becomes_a_summary(take, template):
    measurement = take(template("layers", "{output}", layers=LAYERS, iterations=9))
    assert measurement.status == "ok", measurement.error
    assert (measurement.summary.median_ns, latency_ms(measurement)) == (6_000_000, 6.0)
    assert not measurement.samples_ns


def test_blocks_are_timed_inside_a_network(host, trial_of, template, calls):
    network = concatenate("network:test", (FIRST, SECOND))
    model = lower("command:mine", network, 1, command=template("layers", "{output}", layers=LAYERS))
    trial = trial_of("command:mine", block=network, model_id=model.model_id)
    trial.job.settings.command = template("layers", "{output}", layers=LAYERS)
    for block in (FIRST, SECOND):
        trial.job.parts.add(key=block.key, operators=len(block.operators))
    measurement = host.take(trial, model)
    assert measurement.status == "ok", measurement.error
    assert [(part.key, list(part.samples_ns)) for part in measurement.parts] == [
        ("first", [3_000_000]),
        ("second", [3_000_000]),
    ]
    assert len(calls()) == 1  # one run times the network and its layers


def test_the_reference_runs_around_the_one_run(host, trial_of, template):
    network = concatenate("network:test", (FIRST, SECOND))
    model = lower("onnx", network, 1)
    text = template("layers", "{output}", layers=LAYERS)
    trial = trial_of("command:mine", block=network, model_id=model.model_id, command=text)
    trial.job.parts.add(key="all", operators=4)
    trial.reference.CopyFrom(trial_of("onnxruntime", block=network, model_id=model.model_id).job)
    measurement = host.take(trial, model)
    assert measurement.status == "ok", measurement.error
    assert measurement.reference_after_ns == measurement.reference_before_parts_ns > 0
    assert list(measurement.parts[0].samples_ns) == [6_000_000]  # not scaled by the device speed


def test_a_command_for_layers_runs_in_addition(host, trial_of, template, tool, tmp_path, calls):
    network = concatenate("network:test", (FIRST, SECOND))
    latency = {"regex": r"(?:median |run 1: )(\d+) (?:ms|us)", "unit": "ms"}
    profile = [tool, str(tmp_path), "layers", "{output}", "{model}"]
    text = template("samples", profile=profile, layers=LAYERS, latency=latency)
    model = lower("onnx", network, 1)
    trial = trial_of("command:mine", block=network, model_id=model.model_id, command=text)
    for block in (FIRST, SECOND):
        trial.job.parts.add(key=block.key, operators=len(block.operators))
    measurement = host.take(trial, model)
    assert measurement.status == "ok", measurement.error
    assert [call[0] for call in calls()] == ["layers", "samples"]
    assert sum(part.samples_ns[0] for part in measurement.parts) == 4000 * 10**6  # of the second run


def test_a_template_without_layers_does_not_time_blocks_in_a_network(host, trial_of, template):
    network = concatenate("network:test", (FIRST, SECOND))
    model = lower("onnx", network, 1)
    trial = trial_of("command:mine", block=network, model_id=model.model_id, command=template("samples"))
    trial.job.parts.add(key="all", operators=4)
    measurement = host.take(trial, model)
    assert (measurement.status, "does not report operator times" in measurement.error) == ("unsupported", True)


@pytest.mark.parametrize(
    ("behaviour", "more", "status", "words"),
    [
        ("fail", {}, "crashed", ("exited with code 3", "its last line: no such device")),
        ("memory", {}, "out-of-memory", ("exited with code 1", "out of memory")),
        ("silent", {}, "unsupported", ("expected in its output: a match of the regular expression", "last line: done")),
        ("sleep", {"timeout": 0.3}, "timed-out", ("did not end within 0.3 s", "last line: waiting")),
        (
            "silent",
            {"latency": {"file": "r.csv", "csv": "ms", "unit": "ms"}, "report": ["true", "{output}"]},
            "unsupported",
            ("did not write r.csv but no file",),
        ),
        ("silent", {"report": ["no-such-tool"]}, "unsupported", ("no-such-tool does not exist on this device",)),
    ],
)
def test_a_failure_is_one_line_that_names_the_template(take, template, behaviour, more, status, words):
    measurement = take(template(behaviour, **more))
    assert measurement.status == status, measurement.error
    assert measurement.error.startswith("[command.mine] ")
    assert "\n" not in measurement.error
    for word in words:
        assert word in measurement.error


def test_the_agent_works_on_after_a_failure(take, template):
    assert take(template("fail")).status == "crashed"
    assert take(template("layers", "{output}")).status == "ok"


def test_placeholders_are_whole_arguments_and_no_shell_reads_them(take, template, tmp_path, calls):
    text = template(
        *("layers", "{output}", "$(touch {output}/x); echo", "-b={batch}", "{threads}x{iterations}", "{seconds}"),
        *("{precision}",),
        precisions={"fp32": ["--float", "a b"]},
        iterations=7,
        seconds=0.5,
    )
    assert take(text, threads=1, batch=2).status == "ok"
    (call,) = calls()
    folder = call[1]
    assert call[2:8] == [f"$(touch {folder}/x); echo", "-b=2", "1x7", "0.5", "--float", "a b"]
    assert call[8].endswith("/model.onnx")
    assert not os.path.exists(folder)  # it is removed after each run


def test_the_model_is_the_one_that_was_sent(take, template, small_model):
    measurement = take(template("read"))
    assert measurement.summary.median_ns == len(wire.model_bytes(small_model.chunks)) * 10**6


def test_the_input_is_written_for_tools_that_read_one(take, tool, tmp_path, small_block):
    run = [tool, str(tmp_path), "read", "{input}", "{input_list}", "{model}"]
    measurement = take(parse("mine", {"run": run, "model": "onnx", "latency": MEDIAN}).text)
    assert measurement.summary.median_ns == 4 * 8 * 6 * 6 * 10**6


def test_a_model_is_converted_once(take, tool, tmp_path, calls):
    values = {
        "convert": [tool, str(tmp_path), "convert", "{model}", "{converted}"],
        "run": [tool, str(tmp_path), "read", "{converted}"],
        "suffix": ".bin",
    }
    text = parse("mine", {**values, "model": "onnx", "latency": MEDIAN}).text
    measurements = [take(text), take(text)]
    assert [measurement.summary.median_ns for measurement in measurements] == [14 * 10**6] * 2
    assert [call[0] for call in calls()] == ["convert", "read", "read"]
    assert calls()[1][1].endswith(".bin")


def test_a_conversion_that_writes_nothing_is_reported(take, tool, tmp_path):
    values = {
        "convert": [tool, str(tmp_path), "silent", "{model}"],
        "run": [tool, str(tmp_path), "read", "{converted}"],
    }
    measurement = take(parse("mine", {**values, "model": "onnx", "latency": MEDIAN}).text)
    assert measurement.error == "[command.mine] convert did not write {converted}; its last line: done"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": "int8"}, "has no precision int8; it has fp32"),
        ({"threads": 2}, "has no {threads}; use --threads 1"),
    ],
)
def test_settings_that_the_template_cannot_use_are_refused(take, template, settings, words):
    measurement = take(template("samples"), **settings)
    assert measurement.status == "unsupported"
    assert words in measurement.error or "threads exceed" in measurement.error


def test_a_template_of_another_version_is_unsupported(take):
    measurement = take('{"name": "mine", "run": ["tool", "{model}"], "colour": 1}')
    assert (measurement.status, "unknown key 'colour'" in measurement.error) == ("unsupported", True)


def test_the_tool_ends_with_its_agent(start_agent, trial_of, small_model, small_block, template, tmp_path, eventual):
    agent = start_agent("--allow-commands")
    host = agent.host()
    host.welcome()
    host.send(
        trial=trial_of("command:mine", block=small_block, model_id=small_model.model_id, command=template("sleep"))
    )
    for part in wire.model_messages(small_model.model_id, small_model.chunks):
        host.send(model=part)
    pid = int(eventual(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    os.kill(agent.process.pid, signal.SIGKILL)

    def gone():
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] in "ZX"
        except FileNotFoundError:
            return True

    assert eventual(gone, 10.0)


# Permission, and the description of the device.


def described(agent, *texts):
    call = agent.channel().unary_unary(
        wire.method(wire.SERVICE, "Describe"), wire.DescribeRequest.SerializeToString, wire.Description.FromString
    )
    return call(wire.DescribeRequest(commands=texts), timeout=60)


def test_an_agent_runs_no_command_unless_its_owner_allows_it(
    start_agent, trial_of, small_model, small_block, template, tool, tmp_path
):
    text = template("samples")
    agent = start_agent()
    assert f"may not run {tool}" in described(agent, text).missing_runtimes["command:mine"]
    host = agent.host()
    host.welcome()
    trial = trial_of("command:mine", block=small_block, model_id=small_model.model_id, command=text)
    measurement = host.take(trial, small_model)
    assert (measurement.status, f"--allow-command {tool}" in measurement.error) == ("unsupported", True)
    assert not (tmp_path / "calls").exists()
    agent = start_agent("--allow-command", tool, "--allow-command", "other")
    assert "command:mine" in described(agent, text).runtimes


def test_the_reference_job_needs_permission_too(start_agent, trial_of, template):
    host = start_agent().host()
    host.welcome()
    trial = trial_of()
    trial.reference.CopyFrom(trial_of("command:mine", command=template("samples")).job)
    assert "may not run" in host.take(trial).error


def test_the_description_has_the_version_of_the_tool(agent, template, tool, tmp_path, calls):
    version = {"run": [tool, str(tmp_path), "version"], "regex": r"tool ([\d.]+)"}
    text = template("layers", "{output}", layers=LAYERS, version=version)
    description = described(agent, text)
    digest = parse("mine", {k: v for k, v in json.loads(text).items() if k != "name"}).digest
    assert description.runtimes["command:mine"] == f"3.14 (template {digest})"
    assert "command:mine" in description.profiling_runtimes
    assert description.commands["command:mine"] == text
    described(agent, text)
    assert len(calls()) == 1  # the tool is asked once


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ({"run": ["no-such-tool"], "regex": "(.)"}, "no-such-tool does not exist"),
        (
            {"run": ["echo", "hello"], "regex": "v(\\d)"},
            "echo hello printed no match of 'v(\\\\d)'; its last line: hello",
        ),
        (None, "no-such-tool does not exist on this device"),
    ],
)
def test_a_tool_that_does_not_work_is_missing(agent, version, words):
    values = {"run": ["no-such-tool", "{model}"], "model": "onnx", "latency": MEDIAN}
    text = parse("mine", {**values, **({"version": version} if version else {})}).text
    assert words in described(agent, text).missing_runtimes["command:mine"]


def test_the_reference_job_runs_in_the_worker(host, trial_of, small_model, small_block, template):
    trial = trial_of("command:mine", block=small_block, model_id=small_model.model_id)
    trial.job.settings.command = template("layers", "{output}")
    trial.reference.CopyFrom(trial_of("onnxruntime", block=small_block, model_id=small_model.model_id).job)
    start = time.perf_counter()
    measurement = host.take(trial, small_model)
    assert measurement.status == "ok", measurement.error
    assert min(measurement.reference_before_ns, measurement.reference_after_ns) > 0
    assert time.perf_counter() - start < 30


@pytest.mark.real
def test_benchmark_app_times_blocks_inside_a_network(agent, host, trial_of):
    template = parse("benchmark_app", {**tomllib.loads(shipped())["command"]["benchmark_app"], "iterations": 20})
    missing = described(agent, template.text).missing_runtimes
    if "command:benchmark_app" in missing:
        pytest.skip(missing["command:benchmark_app"])
    network = concatenate("network:test", LARGE)
    model = lower("onnx", network, 1)
    trial = trial_of("command:benchmark_app", block=network, model_id=model.model_id, command=template.text)
    for block in LARGE:
        trial.job.parts.add(key=block.key, operators=len(block.operators))
    trial.reference.CopyFrom(trial_of(template.reference, block=network, model_id=model.model_id).job)
    measurement = host.take(trial, model)
    assert measurement.status == "ok", measurement.error
    assert measurement.reference_before_ns > 0
    assert measurement.summary.count == 20
    shares = [part.samples_ns[0] for part in measurement.parts]
    assert sum(shares) == pytest.approx(measurement.summary.median_ns, rel=0.01)
    assert min(shares) > 0.3 * max(shares)  # the two blocks are equal, but only the first one changes the layout
