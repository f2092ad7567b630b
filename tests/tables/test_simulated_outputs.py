"""Nothing that is made of a simulated table passes for measured: every output of every command says so."""

import json

import click
import pandas as pd
import pytest
import yaml

import ofa_profiler
from ofa_nas.spaces import find_space
from ofa_nas.training import __main__ as train
from ofa_profiler.commands import accuracy, compare, profile, search, table, targets
from ofa_profiler.simulation.engine import Engine
from ofa_profiler.targets.target import find_target
from ofa_tables.errors import OfaError
from ofa_tables.formats import find_format, format_names
from ofa_tables.formats.exchange import import_files
from ofa_tables.table import LatencyTable

OFA, FIXED = find_space("ofa-mbv3-w1.0"), find_space("compofa-fixed-w1.0")
ZU9EG = Engine.of("xilinx-zu9eg", find_target("xilinx-zu9eg").engine)


# Every output. A new command or format that takes a table must be added here.

OUTPUTS = {
    "check": ("T",),
    "diff": ("T", "M"),
    "export": ("T", "--format", "csv", "--out", "x.csv"),
    "import": ("x.csv", "--format", "csv", "--space", OFA.name, "--target", "fpga", "--out", "x.lut"),
    "merge": ("T", "copy.lut", "--out", "merged.lut"),
    "predict": ("T", "--space", OFA.name, "--architecture", "largest"),
    "show": ("T",),
}
NO_TABLE = {"space"}  # commands that read none
WORDS_OF_SEARCH = ("--space", OFA.name, "--population", "20", "--generations", "5")


def test_every_output_of_ofa_table_says_simulated(lut, make_table, call, tmp_path):
    assert set(OUTPUTS) == set(table.table.commands) - NO_TABLE
    (tmp_path / "copy.lut").write_bytes(lut.read_bytes())
    names = {"T": str(lut), "M": str(make_table())}
    for command, words in OUTPUTS.items():
        for extra in ((), ("--json",)):
            for old in ("x.lut", "merged.lut", *(["x.csv"] if command == "export" else [])):
                (tmp_path / old).unlink(missing_ok=True)
            code, out, err = call(table, command, *(names.get(word, word) for word in words), *extra)
            assert code == 0, err
            assert "simulated" in out
            if extra:
                assert json.loads(out)["simulated"] is True
    for words in (("show", lut, "--keys"), ("predict", *OUTPUTS["predict"], "--raw")):
        assert "simulated" in call(table, *(names.get(str(word), word) for word in words))[1]
    several = json.dumps([{"ks": 3, "e": 3, "d": 2, "r": 160}] * 2)
    predict = ("predict", lut, "--space", OFA.name, "--architecture", several)
    assert "simulated" in call(table, *predict)[1]
    assert all(one["simulated"] for one in json.loads(call(table, *predict, "--json")[1])["predictions"])


@pytest.mark.parametrize("name", format_names("write"))
def test_every_format_carries_the_mark_there_and_back(name, lut, call, tmp_path):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"exported-{name}"
    assert call(table, "export", lut, "--format", name, "--out", out)[0] == 0
    if name == "parquet":
        assert set(pd.read_parquet(out)["flags"]) == {"simulated"}
        return
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    if name == "ofa-yaml":
        assert all(file.read_text().startswith("# simulated") for file in files)
        assert all(row["simulated"] for file in files for row in yaml.safe_load(file.read_text()).values())
    import_files(files, find_format(name), OFA, "fpga", tmp_path / "back.lut")
    with LatencyTable.read(tmp_path / "back.lut") as back, LatencyTable.read(lut) as original:
        assert back.simulated
        assert "simulated" in repr(back)
        assert all("simulated" in entry.flags for entry in back.entries)
        assert all(back.entry(one.key).latency_ms == pytest.approx(one.latency_ms) for one in original.entries)
    for words in (("show", "back.lut"), ("check", "back.lut")):
        assert "simulated" in call(table, *words)[1]
    code, _, err = call(compare, "--table", "back.lut")
    assert (code, "is simulated" in err) == (1, True)


@pytest.mark.parametrize(
    "words", [("--max-latency-ms", "3"), ("--max-latency-ms", "2", "3"), ("--pareto",), ("--max-macs-m", "200")]
)
def test_every_output_of_ofa_search_says_simulated(words, lut, call, tmp_path):
    code, out, err = call(search, "--table", lut, *WORDS_OF_SEARCH, *words, "--out", "found.json")
    assert code == 0, err
    assert "simulated latency" in out
    assert "not measured on a device" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(each["simulated"] is True for each in found.get("results") or found.get("front") or [found])
    assert json.loads(call(search, "--table", lut, *WORDS_OF_SEARCH, *words, "--json")[1]).get("simulated", True)
    if words == ("--pareto",):
        page = (tmp_path / "found.html").read_text()
        assert "(simulated)</title>" in page
        assert "not measured on a device" in page
        assert page.count("simulated latency") >= 3  # heading, title of the plot, label of its axis


def test_a_search_with_a_measured_table_says_which_latency_is_simulated(lut, make_table, call):
    tables = ("--table", lut, "--table", make_table(resolutions=(160,)))
    code, out, err = call(search, *tables, *WORDS_OF_SEARCH, "--max-latency-ms", "4", "60")
    assert code == 0, err
    assert "simulated latency on xilinx-zu9eg" in out
    assert "\nlatency on bench" in out


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (compare, ("--table", "T", "--networks", "3")),
        (compare, ("--table", "T", "--calibrate", "3", "--target", "local")),
        (search, ("--table", "T", *WORDS_OF_SEARCH, "--max-latency-ms", "3", "--verify")),
        (search, ("--table", "T", *WORDS_OF_SEARCH, "--max-latency-ms", "3", "--verify", "--target", "local")),
        (targets, ("check", "xilinx-zu9eg")),
        (targets, ("clean", "xilinx-zu3eg")),
        (targets, ("provision", "xilinx-zu3eg")),
    ],
)
def test_what_needs_a_device_is_refused_in_one_line(module, words, lut, call):
    code, out, err = call(module, *(str(lut) if word == "T" else word for word in words))
    assert (code in (1, 2), out) == (True, "")
    assert "is simulated" in err
    assert err.startswith("error: ")


def test_ofa_profile_and_ofa_targets_say_simulated(call):
    words = ("--target", "xilinx-zu3eg", "--space", FIXED.name, "--resolutions", "128")
    code, out, _ = call(profile, *words)
    assert (code, "36 entries simulated: 36 computed" in out) == (0, True)
    assert json.loads(call(profile, *words, "--json")[1])["simulated"] is True
    for listed in (("list",), ("show", "xilinx-zu3eg")):
        for extra in ((), ("--json",)):
            assert "simulated" in call(targets, *listed, *extra)[1]


def test_training_and_pairs_with_a_simulated_table_say_so(tmp_path, call, one_thread):
    pytest.importorskip("torch")
    from ofa_nas.supernet import build_supernet, save_supernet

    path = ofa_profiler.profile("xilinx-zu9eg", "tiny", out=tmp_path / "tiny.lut").path
    words = (
        "--space",
        "tiny",
        "--data",
        "digits",
        "--table",
        path,
        "--recipe",
        "independent",
        "--architecture",
        "smallest",
    )
    words = (*words, "--epochs-scale", "0.001", "--train-images", "32", "--batch-size", "16")
    code, out, err = call(train, *words, "--resolutions", "20", "--out", "run")
    assert code == 0, err
    assert f"{path.name} is simulated" in err
    assert "ms (simulated)" in err
    assert "ms (simulated)" in out
    assert "simulated" in (tmp_path / "run" / "evaluations.csv").read_text()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert all(each["simulated"] for each in summary["held_out"] + summary["test"])
    save_supernet(tmp_path / "supernet.pth", build_supernet(find_space("tiny")))
    collect = ("collect", "--checkpoint", "supernet.pth", "--data", "digits", "--networks", "2", "--images", "20")
    code, _, err = call(accuracy, *collect, "--statistics-images", "20", "--table", path, "--out", "pairs.jsonl")
    assert (code, "is simulated" in err) == (0, True)


def test_the_python_interface_says_simulated(lut):
    with ofa_profiler.open_table(lut) as opened:
        assert opened.simulated
        assert "simulated" in repr(opened)
        assert "simulated" in opened._repr_html_()
        assert opened.to_pandas().attrs["simulated"]
        latencies_ms = ofa_profiler.predict(opened, ["smallest", "largest"], OFA)
        assert latencies_ms.simulated
        assert "simulated" in repr(latencies_ms)
        assert (latencies_ms * 2)[:1].simulated
        found = ofa_profiler.search(opened, 3.0, OFA, generations=5)
        assert found.simulated
        assert "simulated" in repr(found)
    with pytest.raises(OfaError, match="is simulated"):
        ofa_profiler.compare(lut, 3)


def test_the_interface_says_measured_of_a_measured_table(make_table):
    with ofa_profiler.open_table(make_table()) as opened:
        assert not opened.simulated
        latencies_ms = ofa_profiler.predict(opened, ["smallest"], OFA)
        assert not latencies_ms.simulated
        assert "simulated" not in repr(latencies_ms) + repr(ofa_profiler.search(opened, 30.0, OFA, generations=2))


def test_every_command_that_takes_a_table_is_tested_here():
    commands = {
        name: command
        for module in (accuracy.command, compare.compare, search.command, train.command, profile.profile, table.table)
        for name, command in (module.commands.items() if isinstance(module, click.Group) else [(module.name, module)])
    }
    taking = {
        name
        for name, command in commands.items()
        if any("--table" in parameter.opts or parameter.metavar in ("T", "A") for parameter in command.params)
    }
    assert taking - set(OUTPUTS) == {"ofa-compare", "ofa-search", "ofa-train", "collect"}
