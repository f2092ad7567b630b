"""Command templates, the rules that read the output of tools, and the permission of the agent."""

import json
import tomllib
from pathlib import Path

import pytest

from ofa_agent.commands.layers import Kernel, owners_of
from ofa_agent.commands.output import Latency, NoMatch, last_line, read_latency, read_layers
from ofa_agent.commands.permission import EVERY, NO_COMMAND, Permission
from ofa_agent.commands.template import InvalidTemplate, parse, parse_text
from ofa_profiler.targets.commands import shipped

OUTPUTS = Path(__file__).parent / "command_outputs"
LINES = {"regex": "took (\\d+) us", "unit": "us"}
SMALLEST = {"run": ["tool", "{model}"], "model": "onnx", "latency": LINES}
SHIPPED = {name: parse(name, values) for name, values in tomllib.loads(shipped())["command"].items()}


def rule(**values):
    """The rule for the latency with these values."""
    return parse("a", {**SMALLEST, "run": ["tool", "{model}", "{output}"], "latency": values}).latency


def layer_rule(**values):
    layers = {"name": "name", **values} if "regex" not in values else values
    return parse("a", {**SMALLEST, "run": ["tool", "{model}", "{output}"], "layers": layers}).layers


def output(name):
    return (OUTPUTS / name).read_text()


# Templates.


def test_a_small_template_is_enough():
    template = parse("mine", SMALLEST)
    assert template.run == ("tool", "{model}")
    assert template.precisions == {"fp32": ()}
    assert (template.reference, template.layers, template.programs) == ("none", None, ["tool"])


def test_a_template_survives_the_way_to_the_agent():
    for template in SHIPPED.values():
        assert parse_text(template.text) == template


def test_the_digest_depends_on_everything_but_the_notes():
    digest = parse("mine", SMALLEST).digest
    assert parse("mine", {**SMALLEST, "notes": ["fast"]}).digest == digest
    assert parse("mine", {**SMALLEST, "iterations": 51}).digest != digest
    assert parse("other", SMALLEST).digest != digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rum": ["tool"]}, "unknown key 'rum'; known keys: run"),
        ({"run": None}, "run must be a list of arguments"),
        ({"run": "tool {model}"}, "run must be a list of arguments, not 'tool {model}'"),
        ({"run": ["tool", "{modle}"]}, "unknown placeholder {modle}; available: {model}"),
        ({"run": ["tool", "model.onnx"]}, "run does not contain {model}"),
        ({"run": ["tool", "{model}", "-p={precision}"]}, "make it a separate argument"),
        ({"run": ["tool", "{model}", "a\nb"]}, "contains a line break"),
        ({"run": ["tool", "{converted}"]}, "run does not contain {model}"),
        ({"run": ["tool", "{model}", "{converted}"]}, "there is no convert command"),
        ({"convert": ["compile", "{model}"]}, "run does not contain {converted}"),
        ({"convert": ["compile"], "run": ["tool", "{converted}"]}, "convert does not contain {model}"),
        ({"convert": ["compile", "{output}"]}, "unknown placeholder {output}"),
        (
            {"convert": ["c", "{model}", "{input}"], "convert_on": "host", "run": ["tool", "{converted}"]},
            "which has no {input}",
        ),
        (
            {"convert": ["c", "{model}"], "convert_on": "host", "run": ["tool", "{model}", "{converted}"]},
            "{model} is not on the device",
        ),
        ({"convert": ["c", "{model}"], "suffix": ".onnx", "run": ["tool", "{converted}"]}, "suffix '.onnx' is that of"),
        ({"model": "pb"}, "model must be onnx or tflite, not 'pb'"),
        ({"convert_on": "cloud"}, "convert_on must be device or host"),
        ({"precisions": ["fp64"]}, "precisions must be some of fp32"),
        ({"precisions": {"fp16": ["--half"]}}, "no command contains {precision}"),
        ({"version": ["tool", "--version"]}, "version must be { run"),
        ({"version": {"run": ["tool", "{model}"], "regex": "(.)"}}, "unknown placeholder {model}; available: none"),
        ({"latency": "took"}, "latency must be a table"),
        ({"latency": {"unit": "ms"}}, "exactly one of json, csv and regex"),
        ({"latency": {**LINES, "csv": "ms"}}, "exactly one of json, csv and regex"),
        ({"latency": {**LINES, "unit": "minutes"}}, "the unit of latency must be ns or us or ms or s or 1/s"),
        ({"latency": {**LINES, "regex": "took"}}, "needs one group, not 0"),
        ({"latency": {**LINES, "regex": "("}}, "the regular expression of latency is invalid"),
        ({"latency": {**LINES, "colour": "red"}}, "latency has an unknown key 'colour'"),
        ({"latency": {**LINES, "statistic": "mode"}}, "statistic of latency must be mean or median or samples"),
        ({"latency": {"json": "a", "unit": "ms", "file": "r.json"}}, "no command contains {output}"),
        ({"layers": {"csv": "ms", "unit": "ms"}}, "layers has no name"),
        ({"layers": LINES}, "(?P<name>…) and (?P<time>…)"),
        ({"profile": ["tool", "{model}", "-p"]}, "there is no rule layers"),
        ({"suffix": "/../x"}, "suffix must consist of letters"),
        ({"precisions": {"fp16": ["{model}"]}}, "unknown placeholder {model}; available: none"),
        (
            {"run": ["t", "{model}", "{output}"], "latency": {**LINES, "file": "../r"}},
            "must be inside {output}, not '../r'",
        ),
        ({"run": ["t", "{model}", "{output}"], "latency": {**LINES, "file": "/etc/r"}}, "must be inside {output}"),
        ({"iterations": 0}, "iterations must be a number above 0"),
        ({"iterations": 1.5}, "iterations must be a whole number"),
        ({"timeout": True}, "timeout must be a number"),
        ({"reference": 1}, "reference must be a string"),
    ],
)
def test_an_invalid_template_is_reported_in_one_line(change, words):
    with pytest.raises(InvalidTemplate) as error:
        parse("mine", {**SMALLEST, **change})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_is_one_word():
    with pytest.raises(InvalidTemplate, match="the name 'my tool' must consist of letters"):
        parse("my tool", SMALLEST)


def test_a_missing_key_is_explained():
    with pytest.raises(InvalidTemplate, match="latency is missing; it is the rule that finds the latency"):
        parse("mine", {"run": ["tool", "{model}"], "model": "onnx"})


def test_text_that_is_not_a_template_is_invalid():
    for text in ("", "[]", "7", "{}", '{"name": 7}'):
        with pytest.raises(InvalidTemplate):
            parse_text(text)


# Rules.


@pytest.mark.parametrize(
    ("unit", "value_ns"), [("ns", 8), ("us", 8000), ("ms", 8_000_000), ("s", 8 * 10**9), ("1/s", 125_000_000)]
)
def test_units(unit, value_ns):
    assert read_latency(rule(regex="= (\\d+)", unit=unit), "mean = 8").mean_ns == value_ns


def test_a_rate_of_images_is_divided_by_the_batch():
    assert read_latency(rule(regex="FPS=(\\d+)", unit="images/s"), "FPS=100", batch=4).mean_ns == 40_000_000


def test_a_regular_expression_takes_the_last_match():
    text = "FPS: 10\nFPS: 20\nFPS: 50\n"
    assert read_latency(rule(regex="^FPS: (\\d+)$", unit="1/s"), text).mean_ns == 20_000_000
    samples = read_latency(rule(regex="^FPS: (\\d+)$", unit="1/s", statistic="samples"), text)
    assert samples == Latency(samples_ns=(100_000_000, 50_000_000, 20_000_000))


def test_a_median_is_kept_apart_from_a_mean():
    assert read_latency(rule(regex="p50 (.+)", unit="ms", statistic="median"), "p50 2.5") == Latency(
        median_ns=2_500_000
    )


@pytest.mark.parametrize(
    ("path", "statistic", "expected"),
    [
        ("stats.mean", "mean", [3]),
        ("runs[*].ms", "samples", [1, 2]),
        ("runs[1].ms", "mean", [2]),
        ("all[*]", "samples", [5, 6]),
        ("texts", "mean", [7]),
    ],
)
def test_json_paths(path, statistic, expected):
    text = json.dumps({"stats": {"mean": 3}, "runs": [{"ms": 1}, {"ms": 2}, {"s": 9}], "all": [5, 6], "texts": "7"})
    latency = read_latency(rule(json=path, unit="ns", statistic=statistic), text)
    assert list(latency.samples_ns or [latency.mean_ns]) == expected


def test_csv_columns_with_lines_above_the_header():
    text = "Made by a tool\nname; time\nwarmup; 90\nrun; 4\nrun; 5\nshort\n"
    both = rule(csv="time", unit="us", delimiter=";", statistic="samples", where={"name": "run"})
    assert read_latency(both, text).samples_ns == (4000, 5000)


@pytest.mark.parametrize(
    ("values", "text", "words"),
    [
        ({"regex": "p50 (\\d+)"}, "nothing here", "no such value"),
        ({"regex": "p50 (\\w+)"}, "p50 nan", "nan"),
        ({"regex": "p50 (\\w+)"}, "p50 fast", "'fast', which is not a number"),
        ({"regex": "p50 (\\d+)"}, "p50 0", "the value 0, which is not a latency"),
        ({"json": "a.b"}, "{]", "not JSON"),
        ({"json": "a.b"}, '{"a": {"c": 1}}', "no such value"),
        ({"json": "a[*]"}, '{"a": [1, 2]}', "2 values, not one; add statistic = 'samples'"),
        ({"csv": "ms"}, "a,b\n1,2\n", "no such column"),
        ({"csv": "a"}, "a,b\n", "no such value"),
    ],
)
def test_output_that_does_not_fit_is_an_error(values, text, words):
    with pytest.raises(NoMatch) as error:
        read_latency(rule(unit="ms", **values), text)
    assert words in str(error.value)


def test_layers_with_the_same_name_are_added_and_those_without_time_left_out():
    text = "layer,ms\nb,1\na,0\nb,2\ntotal,9\n"
    layers = read_layers(layer_rule(csv="ms", unit="ms", name="layer", skip="^total$"), text)
    assert [(layer.name, layer.time) for layer in layers] == [("b", 3e6)]
    with pytest.raises(NoMatch, match="only layers that took no time"):
        read_layers(layer_rule(csv="ms", unit="ms", name="layer"), "layer,ms\na,0\n")


def test_layers_by_a_regular_expression():
    text = "conv operator0 12 us\nrelu operator1 3 us\n"
    layers = read_layers(layer_rule(regex=r"^\w+ (?P<name>\S+) (?P<time>\d+) us", unit="us"), text)
    assert [(layer.name, layer.time) for layer in layers] == [("operator0", 12000.0), ("operator1", 3000.0)]


def test_the_offset_is_added_to_each_layer():
    (layer,) = read_layers(layer_rule(json="[*].ms", unit="ms", offset=0.5), '[{"name": "a", "ms": 1}, {"count": 3}]')
    assert layer.time == 1.5e6


def test_the_last_line_is_short_and_not_empty():
    assert last_line("first\nlast\n\n  \n") == "last"
    assert last_line("") == "(nothing)"
    assert len(last_line("x" * 5000)) < 250


# The shipped templates on recorded outputs; command_outputs/README.md names their sources.


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        ("benchmark_app", "benchmark_app.txt", Latency(median_ns=6_490_000)),
        ("trtexec", "trtexec-times.json", Latency(samples_ns=(225_098, 224_609, 231_445))),
        ("hailo", "hailo.txt", Latency(mean_ns=12_835_400)),
        ("xdputil", "xdputil.txt", Latency(mean_ns=732_574)),
        ("edgetpu", "../benchmark_model_outputs/external-2023.txt", Latency(mean_ns=1_096_480)),
        ("qnn", "qnn.txt", Latency(mean_ns=2_952_000)),
    ],
)
def test_shipped_templates_read_the_latency(name, file, expected):
    assert read_latency(SHIPPED[name].latency, output(file)) == expected


def test_benchmark_app_layers():
    layers = read_layers(SHIPPED["benchmark_app"].layers, output("benchmark_app-layers.csv"))
    assert layers[0].name == "x_abcd_acdb_operator0/WithoutBiases"
    assert layers[0].between
    assert layers[0].time == pytest.approx(94_000)  # 93 µs, and the part that OpenVINO rounds off
    assert [layer.name for layer in layers][-1] == "y"
    assert "Total" not in {layer.name for layer in layers}


def test_trtexec_layers():
    layers = read_layers(SHIPPED["trtexec"].layers, output("trtexec-profile.json"))
    assert len(layers) == 7  # the first record is the number of runs, and one layer took no time
    assert layers[1].name == "/features/features.0/features.0.0/Conv + /features/features.0/features.0.2/Clip"
    assert layers[1].time == pytest.approx(7878.58)


def test_qnn_layers():
    layers = read_layers(SHIPPED["qnn"].layers, output("qnn-profile.csv"))
    assert [(layer.name, layer.time) for layer in layers] == [
        ("operator0:OpId_7 (cycles)", 1500.0),
        ("operator2:OpId_12 (cycles)", 600.0),
    ]


@pytest.mark.parametrize(("name", "file"), [("benchmark_app", "benchmark_app.txt"), ("trtexec", "trtexec.txt")])
def test_shipped_templates_find_the_version(name, file):
    import re

    found = re.search(SHIPPED[name].version.regex, output(file))
    assert found.group(1).startswith({"benchmark_app": "2026.4", "trtexec": "100900"}[name])


def test_every_recorded_output_has_a_source():
    listed = (OUTPUTS / "README.md").read_text()
    assert all(f"`{path.name}`" in listed for path in OUTPUTS.iterdir() if path.name != "README.md")


# Owners of layers.


def test_layers_of_tensorrt_belong_to_their_first_operator():
    names = [
        "Reformatting CopyNode for Input Tensor 0 to operator0 + operator1",
        "operator0 + operator1",
        "PWN(PWN(operator3.gate), operator3)",
        "copy",
        "{ForeignNode[operator5.pool...operator5]}",
    ]
    assert owners_of([Kernel(name, name) for name in names], 7) == [0, 0, 3, 5, 5]


# Permission.


def test_an_agent_runs_only_programs_that_its_owner_allows():
    template = parse("mine", {**SMALLEST, "report": ["/opt/convert", "{output}"], "run": ["tool", "{model}"]})
    assert EVERY.refusal(template) == ""
    assert Permission(["tool", "/opt/convert"]).refusal(template) == ""
    assert "may not run /opt/convert" in Permission(["tool"]).refusal(template)
    assert "--allow-command /opt/convert --allow-command tool" in NO_COMMAND.refusal(template)


def test_the_version_command_needs_permission_too():
    template = parse("mine", {**SMALLEST, "version": {"run": ["rm", "-rf"], "regex": "(.)"}})
    assert "may not run rm" in Permission(["tool"]).refusal(template)


def test_a_converter_on_the_host_needs_no_permission_of_the_agent():
    values = {**SMALLEST, "convert": ["compile", "{model}"], "convert_on": "host", "run": ["tool", "{converted}"]}
    assert Permission(["tool"]).refusal(parse("mine", values)) == ""
