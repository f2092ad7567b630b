"""Command templates in target files, on the host, and in tables."""

import json
import re
from pathlib import Path

import pytest

from ofa_agent.commands.template import _KEYS, _RULE_KEYS, PLACEHOLDERS, parse, parse_text
from ofa_agent.operators import Activation, Block, Conv
from ofa_agent.protocol import messages as wire
from ofa_profiler.campaign.jobs import reference_job, reference_message
from ofa_profiler.commands.targets import targets as targets_command
from ofa_profiler.connections.deploy import Python
from ofa_profiler.lowering import lower
from ofa_profiler.targets import target as targets
from ofa_profiler.targets.target import all_commands, find_target
from ofa_tables.errors import DeviceError, FileError, TableMismatch, UnknownName
from ofa_tables.identity import Identity, Settings
from ofa_tables.table import LatencyTable

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
BLOCK = Block("a block", (8, 6, 6), (Conv(8, 8, 3), Activation("relu")))
MINE = """
[attic]
connection = "local"
runtimes = ["command:mine"]

[command.mine]
run = ["tool", "{model}"]
model = "onnx"
latency = { regex = "took (\\\\d+) us", unit = "us" }
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write targets.toml to the current directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return (tmp_path / "targets.toml").write_text


def test_the_shipped_templates_are_valid(write):
    commands = all_commands()
    assert set(commands) == {"benchmark_app", "trtexec", "hailo", "xdputil", "edgetpu", "qnn"}
    assert all(command.values["notes"] for command in commands.values())


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_of_the_documentation_are_valid(write, text):
    alone = text.startswith("layers")
    write("[command.trtexec]\n" + text if alone else text)
    commands = all_commands()
    assert len(commands) == (6 if alone else 7)
    targets.all_targets()


def test_the_documentation_lists_every_key_and_every_template(write):
    for name in (*_KEYS, *all_commands(), *(f"{{{placeholder}}}" for placeholder in PLACEHOLDERS), *_RULE_KEYS):
        assert f"`{name}`" in PAGE or f"`{name} =" in PAGE, name


def test_a_target_uses_a_template_of_the_user(write):
    write(MINE)
    target = find_target("attic")
    assert target.runtimes == ("command:mine",)
    assert parse_text(target.commands["command:mine"]).run == ("tool", "{model}")
    assert all_commands()["mine"].origins["run"] == "targets.toml"
    assert "command" not in targets.all_targets()


def test_the_command_line_chooses_a_template(write):
    target = find_target("local", runtime="command:trtexec")
    assert list(target.commands) == ["command:trtexec"]
    assert find_target("pi@attic", runtime="command:hailo").commands.keys() == {"command:hailo"}
    assert find_target("local").commands == {}


def test_a_template_inherits_from_another_and_can_be_changed(write):
    write('[command.npu]\nlike = "benchmark_app"\niterations = 7\n[command.hailo]\nseconds = 9\n')
    commands = all_commands()
    assert commands["npu"].template.iterations == 7
    assert commands["npu"].template.run == commands["benchmark_app"].template.run
    assert (commands["hailo"].template.seconds, commands["hailo"].template.suffix) == (9, ".hef")
    assert commands["hailo"].origins == {**commands["hailo"].origins, "seconds": "targets.toml", "run": "ofa-profile"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[command.mine]\nrun = ["tool"]', "targets.toml: [command.mine] model is missing"),
        ('[command.hailo]\nlatency = "x"', "targets.toml: [command.hailo] latency must be a table"),
        ('[command]\nrun = ["tool"]', "'run' is not in a section; move it under one, such as [command.run]"),
        ('[command.mine]\nlike = "trtexe"', "did you mean trtexec?"),
        ("command = 7", "'command' is not in a section"),
    ],
)
def test_an_invalid_template_names_its_file(write, text, words):
    write(text)
    with pytest.raises(FileError) as error:
        all_commands()
    assert words in str(error.value)


def test_an_unknown_template_suggests_the_nearest(write):
    with pytest.raises(UnknownName, match="did you mean trtexec"):
        find_target("local", runtime="command:trtexe")


@pytest.fixture
def show(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")

    def run(*words):
        targets_command.main(["show", *words], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_a_template_is_shown_alone_and_with_its_target(write, show):
    write(MINE)
    for name in ("attic", "command:mine"):
        shown = show(name)
        assert "tool {model}" in shown
        assert "targets.toml" in shown
    assert r"TensorRT\.trtexec \[TensorRT v(\d+)\]" in show("command:trtexec")
    assert json.loads(show("command:mine", "--json"))["command:mine"]["run"] == ["tool", "{model}"]
    assert json.loads(show("attic", "--json"))["commands"]["command:mine"]["model"] == "onnx"


# Models.


def test_the_format_of_the_template_decides_the_model():
    latency = {"regex": "(.)", "unit": "ms"}
    for model, same in (("onnx", "onnxruntime"), ("tflite", "tflite")):
        text = parse("mine", {"run": ["tool", "{model}"], "model": model, "latency": latency}).text
        assert lower("command:mine", BLOCK, 1, "fp32", text) == lower(same, BLOCK, 1)


def converting(*command, timeout=100):
    values = {
        "run": ["tool", "{converted}"],
        "model": "onnx",
        "latency": {"regex": "(.)", "unit": "ms"},
        "convert": command,
        "convert_on": "host",
        "suffix": ".hef",
        "timeout": timeout,
    }
    return parse("mine", values).text


def test_a_model_is_converted_on_the_host_and_kept(write, tmp_path):
    count = tmp_path / "count"
    code = 'printf x >> "$0" && head -c 9 "$1" > "$2"'
    text = converting("sh", "-c", code, str(count), "{model}", "{converted}")
    models = [lower("command:mine", BLOCK, 1, "fp32", text) for _ in range(2)]
    assert models[0] == models[1]
    assert b"".join(models[0].chunks) == wire.model_bytes(lower("onnx", BLOCK, 1).chunks)[:9]
    assert count.read_text() == "x"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("no-such-compiler", "{model}"), "no-such-compiler does not exist; install it"),
        (
            ("sh", "-c", "echo unknown operator; exit 2", "{model}"),
            "exited with code 2; its last line: unknown operator",
        ),
        (("true", "{model}"), "did not write {converted}"),
        (("sh", "-c", "sleep 60", "{model}"), "did not end within 1 s"),
    ],
)
def test_a_failed_conversion_on_the_host_is_one_line(write, command, words):
    with pytest.raises(DeviceError) as error:
        lower("command:mine", BLOCK, 1, "fp32", converting(*command, timeout=1))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# Tables and campaigns.


def identity(runtime_version="1.0 (template 12345678)"):
    return Identity("attic", "f00", "command:mine", runtime_version, Settings(), "alone")


def test_a_table_is_not_continued_with_another_template(tmp_path):
    device = {"commands": {"command:mine": '{"name": "mine"}'}}
    with LatencyTable.create(tmp_path / "t.lut", identity(), device) as table:
        assert table.command == '{"name": "mine"}'
        table.require_identity(identity())
        with pytest.raises(TableMismatch, match="template 12345678"):
            table.require_identity(identity("1.0 (template 87654321)"))


def test_other_tables_have_no_template(tmp_path):
    with LatencyTable.create(tmp_path / "t.lut", identity(), {}) as table:
        assert table.command == ""


def test_the_reference_job_runs_by_the_runtime_that_the_template_names():
    job = reference_job("onnx")
    template = all_commands()["benchmark_app"].template
    message, sent = reference_message(identity(), job, template)
    assert (message.settings.runtime, message.settings.command, len(sent)) == ("openvino", "", 1)
    message, sent = reference_message(identity(), job, all_commands()["trtexec"].template)
    assert (message.key, sent) == ("", [])


def test_a_command_needs_no_package_on_the_board():
    python = Python("3.11.2", "/usr/bin/python3", "cp311", "aarch64", "glibc-2.36", ("grpcio",), ())
    assert python.lacks(("command:hailo", "onnxruntime")) == ["grpcio"]
