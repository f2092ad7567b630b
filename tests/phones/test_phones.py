"""Phones, as a user has them: found, measured both ways, shared, and everything that goes wrong with them."""

import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from model_files import conv_onnx, small_tflite

from ofa_agent.commands.template import parse
from ofa_agent.device.shell import Ran
from ofa_agent.measuring.timing import Budget
from ofa_agent.protocol import messages as wire
from ofa_nas.spaces import find_space
from ofa_profiler.campaign.campaign import Campaign
from ofa_profiler.campaign.jobs import lower_jobs
from ofa_profiler.connections import connect
from ofa_profiler.connections.adb.host_agent import PhoneTrialExecutor
from ofa_profiler.connections.adb.server import AdbServer, Phone
from ofa_profiler.connections.adb.shell import FOLDER, HOLD, AdbShell
from ofa_profiler.targets.target import find_target
from ofa_tables.errors import DeviceHeld, Unreachable
from ofa_tables.identity import Identity
from ofa_tables.table import LatencyTable

STAND_IN = Path(__file__).parent / "benchmark_model.py"
COMMANDS = Path(sys.executable).parent
SPACE = find_space("compofa-fixed-w1.0")
BUDGET = Budget(warmup_s=0.02, burst_min_s=0.02, burst_max_s=0.05)
PATIENCE_S = 60.0

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed"),
]


@pytest.fixture(scope="session")
def tool(tmp_path_factory):
    """The stand-in as an executable of this machine."""
    path = tmp_path_factory.mktemp("tool") / "benchmark_model"
    path.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    path.chmod(0o755)
    return path


@pytest.fixture
def command(adb_server, tmp_path, tool):
    """Runs one of our commands in a folder of its own, with the tests' adb server."""

    def run(name, *arguments, **environment):
        return subprocess.run(
            [COMMANDS / name, *map(str, arguments)],
            cwd=tmp_path,
            env={**adb_server.environment, "OFA_AGENT_HOME": str(tmp_path / "agent"), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def executor(adb_server, tool):
    """Takes trials on a phone, without an agent around it."""

    def make(phone):
        shell = AdbShell(Phone(AdbServer(f"127.0.0.1:{adb_server.port}"), phone.serial, "pixel-1"))
        made = PhoneTrialExecutor(shell, tool)
        assert "benchmark_model" in made.probe().runtimes
        return made

    return make


@pytest.fixture
def deviate(tool):
    """Lets the stand-in on a phone do other than it should."""

    def write(phone, how):
        digest = hashlib.sha256(tool.read_bytes()).hexdigest()[:12]
        phone.shell(f"mkdir -p {FOLDER}; echo '{how}' > {FOLDER}/benchmark_model-{digest}.stand_in")

    return write


def take(executor, tmp_path, block, runtime="benchmark_model", trial_timeout_s=30.0):
    """The Measurement of one trial of a Block."""
    (job,) = lower_jobs([block], runtime, 1)
    path = tmp_path / job.model.model_id
    path.write_bytes(wire.model_bytes(job.model.chunks))
    settings = wire.Settings(runtime=runtime, precision="fp32", threads=1, batch=1)
    trial = wire.Trial(trial_id="v", job=wire.job_message(block, settings, job.model.model_id))
    wire.set_budget(trial.budget, BUDGET, trial_timeout_s)
    return executor.take(wire.WorkerTrial(trial=trial, model_path=str(path)))


BLOCK, OTHER_BLOCK = SPACE.blocks(128)[1:3]


# Command templates. The tool counts the bytes of the model.
COUNT = {"run": ["wc", "-c", "{model}"], "model": "onnx", "latency": {"regex": r"^(\d+) .*/model\.onnx$", "unit": "us"}}


@pytest.fixture
def take_command(executor, phone, tmp_path):
    there = phone()
    made = executor(there)

    def run(**values):
        text = parse("mine", {**COUNT, **values}).text
        (job,) = lower_jobs([BLOCK], "command:mine", 1, command=text)
        path = tmp_path / job.model.model_id
        path.write_bytes(wire.model_bytes(job.model.chunks))
        settings = wire.Settings(runtime="command:mine", precision="fp32", threads=1, batch=1, command=text)
        trial = wire.Trial(trial_id="v", job=wire.job_message(BLOCK, settings, job.model.model_id))
        wire.set_budget(trial.budget, BUDGET, 30.0)
        return made.take(wire.WorkerTrial(trial=trial, model_path=str(path))), path.stat().st_size

    run.phone = there
    return run


def test_a_command_runs_on_the_phone(take_command):
    measurement, size = take_command()
    assert measurement.status == "ok", measurement.error
    assert measurement.summary.mean_ns == size * 1000
    assert measurement.condition_before.battery > 0
    assert not take_command.phone.shell(f"ls -d {FOLDER}/command-* 2>/dev/null").stdout


def test_a_report_on_the_phone_is_read_and_a_model_converted_there(take_command):
    report = ["sh", "-c", 'printf "ms\\n7\\n" > "$0/r.csv"; cat "$1"', "{output}", "{converted}"]
    measurement, _ = take_command(
        convert=["cp", "{model}", "{converted}"], run=report, latency={"file": "r.csv", "csv": "ms", "unit": "ms"}
    )
    assert measurement.status == "ok", measurement.error
    assert measurement.summary.mean_ns == 7_000_000


def test_a_command_that_fails_on_the_phone(take_command):
    for values, status, words in (
        ({"run": ["no-such-tool", "{model}"]}, "unsupported", "no-such-tool does not exist on this device"),
        ({"run": ["ls", "/nowhere", "{model}"]}, "crashed", "exited with code"),
        ({"run": ["sh", "-c", "sleep 60", "{model}"], "timeout": 1}, "timed-out", "did not end within 1 s"),
        ({"run": ["echo", "hello", "{model}"]}, "unsupported", "its last line: hello"),
    ):
        measurement, _ = take_command(**values)
        assert measurement.status == status, measurement.error
        assert words in measurement.error


def test_a_target_with_a_command_needs_no_benchmark_model(command, phone, tmp_path):
    made = phone("FA6C")
    text = "[pixel-1]\nruntimes = ['command:count']\n[command.count]\nrun = ['wc', '-c', '{model}']\nmodel = 'onnx'\n"
    (tmp_path / "targets.toml").write_text(text + "latency = { regex = '^([0-9]+)', unit = 'ns' }\n")
    checked = command("ofa-targets", "check", "pixel-1")
    assert checked.returncode == 0, checked.stderr
    assert "by command:count" in checked.stderr
    assert made.serial


# What a user does.


def test_a_phone_is_checked_by_its_models_name(command, phone, tool):
    phone()
    ran = command("ofa-targets", "check", "pixel-1", "--set", f"benchmark_model={tool}", "--json")
    assert ran.returncode == 0, ran.stderr
    reported = json.loads(ran.stdout)
    assert reported["ok"]
    assert reported["battery"] == "84%, 30 °C"
    assert reported["describe"].startswith("msm8996, Android 10 (SDK 29)")
    assert "model Google Pixel" in reported["describe"]
    assert "by benchmark_model, fp32, 1 thread" in reported["time a network"]


def test_a_model_file_is_profiled_on_a_phone(command, phone, tool, tmp_path):
    """The stand-in for the tool has no profile of operators, which the report says."""
    phone()
    small_tflite(tmp_path / "mine.tflite")
    profile = ("ofa-profile", "--target", "pixel-1", "--effort", "quick", "--model", tmp_path / "mine.tflite", "--json")
    ran = command(*profile, "--set", f"benchmark_model={tool}", "--out", tmp_path / "report")
    assert ran.returncode == 0, ran.stderr
    (model,) = json.loads(ran.stdout.splitlines()[-1])["models"]
    assert (model["target"], model["runtime"]) == ("pixel-1", "benchmark_model")
    assert model["latency_ms"] > 0
    assert model["first_ms"] > 0
    assert model["peak_mb"] > 0
    assert model["macs"] == 12 * 12 * 8 * 27 + 8 * 5
    assert "does not support some flags" in model["layers_error"]
    assert (tmp_path / "report" / "profile.html").exists()


def test_an_onnx_file_needs_another_runtime_on_a_phone(command, phone, tool, tmp_path):
    phone()
    conv_onnx(tmp_path / "mine.onnx")
    profile = ("ofa-profile", "--target", "pixel-1", "--model", tmp_path / "mine.onnx")
    ran = command(*profile, "--set", f"benchmark_model={tool}")
    assert ran.returncode == 1
    assert "has no runtime that reads ONNX files" in ran.stderr


def test_an_agent_on_the_phone_runs_by_its_own_python(command, phone, python36):
    python = str(python36)
    phone()
    ran = command("ofa-targets", "check", "pixel-1", "--set", f"python={python}")
    assert ran.returncode == 0, ran.stderr
    assert "by onnxruntime, fp32" in ran.stderr
    ran = command("ofa-targets", "clean", "pixel-1")
    assert "/data/local/tmp/ofa-profile-0" in ran.stdout


def test_clean_removes_all_files_from_a_phone(command, phone, tool):
    there = phone()
    command("ofa-targets", "check", "pixel-1", "--set", f"benchmark_model={tool}")
    assert there.shell(f"ls {FOLDER}").returncode == 0
    assert FOLDER in command("ofa-targets", "clean", "pixel-1").stdout
    assert there.shell(f"ls {FOLDER}").returncode != 0
    assert "nothing of ours was there" in command("ofa-targets", "clean", "pixel-1").stdout


def test_a_phone_without_a_python_is_cleaned_too(command, phone):
    there = phone()
    nowhere = ("--set", "python=/nowhere/python3")
    assert "no Python called /nowhere/python3" in command("ofa-targets", "check", "pixel-1", *nowhere).stderr
    assert there.shell("ls /data/local/tmp/ofa-profile-0/*.pyz").returncode == 0
    ran = command("ofa-targets", "clean", "pixel-1", *nowhere)
    assert ran.returncode == 0, ran.stderr
    assert "removed /data/local/tmp/ofa-profile-0" in ran.stdout


def test_conditions_are_set_on_the_phone_and_put_back(phone, tool, adb_server, monkeypatch, tmp_path):
    there = phone(**{"ro.build.version.sdk": "33", "ro.build.version.release": "13"})
    lead(monkeypatch, adb_server, tmp_path)
    wanted = {"affinity": "big", "screen": "off", "fixed-performance": "on", "governor": "performance"}
    with connect(find_target("pixel-1", {**wanted, "benchmark_model": str(tool)})) as connection:
        with connection.agent.lease("a", "a test", connection.target.conditions) as lease:
            assert lease.not_set == {}
            assert there.reported("wakefulness") == "Asleep"
            assert there.reported("fixed_performance") == "true"
            assert (there.folder / "cpu/cpufreq/policy2/scaling_governor").read_text() == "performance"
            trials = [trial_of(BLOCK)]
            (job,) = lower_jobs([BLOCK], "benchmark_model", 1)
            models = {job.model.model_id: job.model}
            (measurement,) = lease.measure(lambda: trials.pop() if trials else None, models)
            lease.acknowledge([measurement.trial_id])
            assert measurement.status == "ok", measurement.error
            assert there.reported("mask") == "c"  # cores 2 and 3, the faster ones
        deadline = time.monotonic() + PATIENCE_S
        while there.reported("wakefulness") != "Awake" and time.monotonic() < deadline:
            time.sleep(0.05)
    assert there.reported("wakefulness") == "Awake"
    assert there.reported("fixed_performance") == "false"
    assert (there.folder / "cpu/cpufreq/policy2/scaling_governor").read_text() == "schedutil"


def trial_of(block):
    (job,) = lower_jobs([block], "benchmark_model", 1)
    settings = wire.Settings(runtime="benchmark_model", precision="fp32", threads=1, batch=1)
    trial = wire.Trial(trial_id="v", job=wire.job_message(block, settings, job.model.model_id))
    wire.set_budget(trial.budget, BUDGET, 30.0)
    return trial


def lead(monkeypatch, adb_server, tmp_path):
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb_server.port))
    monkeypatch.setenv("OFA_AGENT_HOME", str(tmp_path / "agent"))


# One phone and several.


class Said:
    """A campaign's progress; ``at`` calls something after so many Measurements."""

    def __init__(self, at=0, call=None):
        self.texts, self.count, self.at, self.call = [], 0, at, call

    def begin(self, trials):
        pass

    def measured(self, measurement, trials_left):
        self.count += 1
        if self.call and self.count == self.at:
            threading.Thread(target=self.call, daemon=True).start()

    def say(self, text):
        self.texts.append(text)

    def has(self, words):
        return any(words in text for text in self.texts)


@pytest.fixture
def share(adb_server, tool, monkeypatch, tmp_path):
    """Measures some Blocks in three rounds on the phones, with a phone's own Shell told to do something on the way."""

    def run(phones, said, blocks=5, **settings):
        lead(monkeypatch, adb_server, tmp_path)
        serials = ",".join(each.serial for each in phones)
        target = find_target(f"adb:{serials}", {"benchmark_model": str(tool), **settings})
        jobs = lower_jobs(SPACE.blocks(128)[:blocks], "benchmark_model", 1)
        with connect(target) as connection:
            for member in connection.members:
                member.say = said.say
            identity = Identity(target.name, "f", "benchmark_model", "1")
            with LatencyTable.create(tmp_path / "t.lut", identity, {}) as table:
                outcome = Campaign(table, [jobs] * 3, BUDGET, said, "a test").run(connection)
                done = table.rounds_of()
        assert all(done[job.block.key] >= set(range(3)) for job in jobs)
        return outcome

    return run


def test_phones_of_one_model_share_a_campaign(share, phone, deviate):
    phones = [phone("FA6A"), phone("FA6B")]
    for each in phones:
        deviate(each, "sleep=5")
    outcome = share(phones, Said())
    assert set(outcome.factors) == {each.serial for each in phones}
    assert min(outcome.shares.values()) >= 5
    assert outcome.set_aside == {}


def test_a_phone_that_is_off_is_set_aside(share, phone, deviate):
    phones = [phone("FA6A"), phone("FA6B")]
    for each, speed in zip(phones, (5, 8), strict=True):
        deviate(each, f"sleep={speed}")
    said = Said()
    outcome = share(phones, said)
    (name,) = outcome.set_aside
    assert phones[1].serial in name.split()[-1]
    assert said.has("is set aside")
    assert outcome.shares[name] == 0


def test_trials_of_an_unplugged_phone_are_run_by_the_other(share, phone, deviate):
    phones = [phone("FA6A"), phone("FA6B")]
    for each in phones:
        deviate(each, "sleep=5")
    said = Said(at=9, call=phones[0].unplug)
    share(phones, said)
    assert said.has("reconnecting"), said.texts
    assert said.has(f"the agent on {phones[0].serial} "), said.texts


def test_a_phone_that_is_plugged_in_again_continues(share, phone, deviate):
    there = phone()
    deviate(there, "sleep=5")

    def pull():
        there.unplug()
        deadline = time.monotonic() + PATIENCE_S
        while not said.has("is unplugged; plug it in again") and time.monotonic() < deadline:
            time.sleep(0.05)
        there.plug_in_again()

    said = Said(at=6, call=pull)
    share([there], said)
    assert said.has("is unplugged; plug it in again"), said.texts
    assert said.has("is there again"), said.texts


def test_phones_of_one_name_with_two_chips_do_not_share_a_table(command, phone, tool):
    phone("FA6A")
    phone("FA6B", **{"ro.board.platform": "exynos9"})
    ran = command("ofa-profile", "--target", "pixel-1", "--set", f"benchmark_model={tool}", "--resolutions", "128")
    assert ran.returncode == 1
    assert "msm8996" in ran.stderr
    assert "exynos9" in ran.stderr
    assert "are two devices, and would be two tables" in ran.stderr


# One command has a phone.


@pytest.fixture
def connection(adb_server, tool, monkeypatch, tmp_path):
    """A way to the phone, as another user of the adb server would have it."""
    lead(monkeypatch, adb_server, tmp_path)
    monkeypatch.setattr("ofa_profiler.connections.adb.phone.LOCK_WAIT_S", 1.0)

    def make(name):
        monkeypatch.setenv("OFA_AGENT_HOME", str(tmp_path / name))
        return connect(find_target("pixel-1", {"benchmark_model": str(tool)}))

    return make


def test_a_phone_has_one_agent_whoever_starts_it(connection, phone):
    there = phone()
    with connection("one") as one:
        running = one.agent.describe()["runtimes"]
        with connection("other") as other, pytest.raises(DeviceHeld) as refused:
            _ = other.agent
        says = r"pixel-1 \(.*\) already has an agent, held by \S+@\S+ \(process \d+\) since "
        assert re.match(says, str(refused.value))
        with connection("other") as other, pytest.raises(DeviceHeld):
            other.clean()
        assert one.agent.describe()["runtimes"] == running
    with connection("other") as other:
        assert other.agent.describe()["runtimes"] == running
    assert there.shell("ls /data/local/tmp").output.split() == ["ofa-profile", "ofa-profile.lock"]


def test_a_phone_is_free_when_its_host_is_gone(connection, phone, adb_server):
    there = phone()
    gone = Phone(AdbServer(f"127.0.0.1:{adb_server.port}"), there.serial, "pixel-1")
    ran, stream = gone.start(HOLD, "somebody")
    assert (ran.output, gone.start(HOLD, "another")) == ("held", (Ran(3, "", "somebody"), None))
    stream.close()  # as the end of a process closes it
    with connection("one") as one:
        assert one.agent.describe()["runtimes"]


# What goes wrong.


@pytest.mark.parametrize(
    ("how", "status", "says"),
    [
        ("crash", "crashed", "benchmark_model crashed"),
        ("silent", "crashed", "benchmark_model printed nothing and exited with 0"),
        ("wrong-abi", "unsupported", "was built for a different ABI .*not executable: 64-bit ELF file"),
    ],
)
def test_a_tool_that_does_not_work_gives_no_figure(executor, deviate, phone, tmp_path, how, status, says):
    there = phone()
    made = executor(there)
    deviate(there, how)
    measurement = take(made, tmp_path, BLOCK)
    assert measurement.status == status
    assert not measurement.summary.count
    assert re.search(says, measurement.error)


def test_a_tool_that_hangs_is_ended(executor, deviate, phone, tmp_path):
    there = phone()
    made = executor(there)
    deviate(there, "hang")
    measurement = take(made, tmp_path, BLOCK, trial_timeout_s=7.0)
    assert (measurement.status, measurement.error) == (
        "timed-out",
        "benchmark_model did not end within 2 s, and was ended",
    )
    assert "benchmark_model" not in there.shell("ps -e -o args | grep '[b]enchmark_model-'").output
    deviate(there, "")
    assert take(made, tmp_path, BLOCK).status == "ok"


def test_a_model_that_a_delegate_refuses_is_unsupported_and_the_next_one_is_measured(
    executor, deviate, phone, tmp_path
):
    there = phone()
    made = executor(there)
    (job,) = lower_jobs([BLOCK], "benchmark_model-gpu", 1)
    deviate(there, f"refuse={job.model.model_id}")
    refused = take(made, tmp_path, BLOCK, "benchmark_model-gpu")
    assert refused.status == "unsupported"
    assert "the delegate does not support the model" in refused.error
    assert take(made, tmp_path, OTHER_BLOCK, "benchmark_model-gpu").status == "ok"


def test_a_phone_without_room_says_so(command, phone, tool):
    phone(size="8k")
    ran = command("ofa-targets", "check", "pixel-1", "--set", f"benchmark_model={tool}")
    assert ran.returncode == 1
    assert "pixel-1 does not take benchmark_model-" in ran.stderr
    assert "No space left on device; make room where /data/local/tmp/ofa-profile is, or run ofa-targets" in ran.stderr


def test_a_model_that_has_no_room_fails_alone(executor, phone, tmp_path):
    made = executor(phone(size="300k"))
    big = SPACE.network(SPACE.decode(SPACE.sample(1, np.random.default_rng(1), [128]))[0])
    measurement = take(made, tmp_path, big)
    assert measurement.status == "out-of-memory"
    assert "No space left on device; make room where /data/local/tmp/ofa-profile/models is" in measurement.error
    assert take(made, tmp_path, SPACE.blocks(128)[0]).status == "ok"


def test_where_there_is_little_room_older_models_go_first(executor, phone, tmp_path):
    there = phone(size="500k")
    made = executor(there)
    blocks = [block for block in SPACE.blocks(128) if 60_000 < 4 * block.parameters < 400_000][:6]
    assert sum(4 * block.parameters for block in blocks) > 500_000
    for block in blocks:
        measurement = take(made, tmp_path, block)
        assert measurement.status == "ok", measurement.error


def test_a_phone_with_an_empty_battery_is_refused(command, phone, tool):
    there = phone()
    there.set("level", 5)
    ran = command("ofa-targets", "check", "pixel-1", "--set", f"benchmark_model={tool}")
    assert ran.returncode == 1
    assert "the battery is at 5%, and phones slow down to save it; charge it to 20%" in ran.stderr
    ran = command("ofa-targets", "check", "pixel-1", "--set", f"benchmark_model={tool}", "--set", "min-battery=0")
    assert ran.returncode == 0


@pytest.mark.parametrize(
    ("state", "says"),
    [("unauthorized", "unlock it, and tap Allow"), ("offline", "it is offline: unlock it, unplug it and plug it in")],
)
def test_a_phone_that_cannot_be_used_is_reported_with_advice(command, phone, state, says):
    there = phone(state=state)
    ran = command("ofa-targets", "check", f"adb:{there.serial}")
    assert ran.returncode == 1
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_phone_that_refuses_every_service_does_not_answer(command, phone):
    there = phone()
    there.order("refuse")
    ran = command("ofa-targets", "check", f"adb:{there.serial}")
    assert ran.returncode == 1
    assert "does not answer adb" in ran.stderr


def test_a_phone_that_stalls_is_given_up_after_a_time(adb_server, phone, monkeypatch):
    monkeypatch.setattr("ofa_profiler.connections.adb.server.CONNECT_S", 2.0)
    there = phone()
    known = Phone(AdbServer(f"127.0.0.1:{adb_server.port}"), there.serial, "pixel-1")
    assert known.run("echo here").output == "here"
    assert known.run("sleep 60", timeout_s=1.0).code == 124
    there.order("stall")
    with pytest.raises(Unreachable, match="does not answer adb"):
        known.run("echo")
    there.order("unstall")
    assert known.run("echo again").output == "again"


def test_a_phone_without_tool_and_without_python_says_both(command, phone, tmp_path):
    phone(path="/nowhere")
    ran = command("ofa-targets", "check", "pixel-1", HOME=str(tmp_path))
    assert ran.returncode == 1
    assert "benchmark_model: TFLite's benchmark_model is not here; get it for arm64-v8a from https://" in ran.stderr
    assert "tflite: " in ran.stderr


def test_a_binary_for_another_abi_is_not_even_pushed(command, phone, tmp_path):
    there = phone()
    tool = tmp_path / "for-x86"
    tool.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\x3e\x00" + bytes(44))
    ran = command("ofa-targets", "check", "pixel-1", "--set", f"benchmark_model={tool}")
    assert ran.returncode == 1
    assert "for-x86 is built for x86_64, pixel-1 is arm64-v8a" in ran.stderr
    assert there.shell(f"ls {FOLDER}/benchmark_model-*").returncode != 0


def test_nothing_is_installed_on_a_phone(command):
    ran = command("ofa-targets", "provision", "pixel-1")
    assert ran.returncode == 2
    assert "nothing is installed on phones from here: bring TFLite's benchmark_model with --set" in ran.stderr


def test_no_phone_at_all(command, adb_server):
    ran = command("ofa-profile", "--target", "pixel-2", "--resolutions", "128")
    assert ran.returncode == 1
    assert "no pixel-2 is connected (model Pixel 2 or Pixel 2 XL); adb sees no phone at all" in ran.stderr


def test_no_adb(command, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ran = command(
        "ofa-targets", "check", "pixel-1", ANDROID_ADB_SERVER_PORT=str(port), ADBUTILS_ADB_PATH=str(tmp_path / "adb")
    )
    assert ran.returncode == 1
    assert "adb is not installed" in ran.stderr
    assert "install it" in ran.stderr


def test_an_adb_server_elsewhere_that_does_not_answer(command):
    with socket.create_server(("127.0.0.2", 0)) as free:
        port = free.getsockname()[1]
    ran = command("ofa-targets", "check", "pixel-1", "--set", f"adb-server=127.0.0.2:{port}")
    assert f"no adb server answers at 127.0.0.2:{port}; start one there with adb -a" in ran.stderr


def test_an_adb_server_of_another_version(command):
    """No such old server can be had here: this one answers the question for its version alone."""
    with socket.create_server(("127.0.0.1", 0)) as old:

        def answer():
            while True:
                connection, _ = old.accept()
                with connection:
                    connection.recv(64)
                    connection.sendall(b"OKAY00040020")

        threading.Thread(target=answer, daemon=True).start()
        ran = command("ofa-targets", "check", "pixel-1", "--set", f"adb-server=127.0.0.1:{old.getsockname()[1]}")
    assert ran.returncode == 1
    assert "is of version 32, 39 or later is needed; end it with adb kill-server" in ran.stderr


def test_something_that_is_not_an_adb_server(command):
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=lambda: [other.accept()[0].close() for _ in range(9)], daemon=True).start()
        ran = command("ofa-targets", "check", "pixel-1", "--set", f"adb-server=127.0.0.1:{other.getsockname()[1]}")
    assert ran.returncode == 1
    assert "is not an adb server" in ran.stderr


def test_a_phone_before_android_7_is_refused_with_the_reason(command, phone, tool):
    old = phone("FA6O", features="cmd")
    done = command("ofa-targets", "check", f"adb:{old.serial}", "--set", f"benchmark_model={tool}")
    assert done.returncode == 1
    assert "its adb daemon does not have shell_v2; ofa-profile requires Android 7 or later" in done.stderr
    assert "Traceback" not in done.stderr
