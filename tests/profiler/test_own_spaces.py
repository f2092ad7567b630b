"""A space of the user through the commands: its table is computed here, used, and found again without the file."""

import json
import sys
from pathlib import Path

import pytest

from ofa_nas.spaces import find_space
from ofa_profiler.commands import profile as profile_command
from ofa_profiler.commands import search as search_command
from ofa_profiler.commands import table as table_command
from ofa_tables.table import LatencyTable

EXAMPLES = Path(__file__).parents[2] / "examples" / "spaces"
COMMANDS = {
    "ofa-profile": profile_command.main,
    "ofa-search": search_command.main,
    "ofa-table": table_command.main,
}


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Run a command in an empty folder; return its exit code, standard output, and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(command, *arguments):
        monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            COMMANDS[command]()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return call


@pytest.fixture
def ok(run):
    """Run a command that succeeds; return the object that it prints with --json."""

    def call(*words):
        code, out, err = run(*words, "--json")
        assert code == 0, err
        return json.loads(out.splitlines()[-1])

    return call


@pytest.fixture(params=["fbnet-small", "three-stages"])
def space(request, tmp_path):
    """The name of an example, of which the file lies in the folder."""
    (tmp_path / "mine.toml").write_text((EXAMPLES / f"{request.param}.toml").read_text())
    return "mine"


@pytest.fixture
def profiled(ok, space):
    px = str(find_space(f"{space}.toml").resolutions_px[0])
    words = ("--target", "xilinx-zu9eg", "--out", "t.lut", "--resolutions", px)
    assert ok("ofa-profile", "--space", f"{space}.toml", *words)["space"] == space
    Path("mine.toml").rename("moved.toml")
    return words


def test_the_second_day_needs_no_file(ok, run, profiled):
    assert ok("ofa-profile", "--space", "mine", *profiled)["computed"] == 0
    assert {reach["space"] for reach in ok("ofa-table", "show", "t.lut")["spaces"]} == {"mine"}
    assert ok("ofa-table", "show", "t.lut")["defined_spaces"] == ["mine"]
    assert "mine, defined in the table" in run("ofa-table", "show", "t.lut")[1]
    predicted = ok("ofa-table", "predict", "t.lut", "--space", "mine", "--architecture", "random:1")
    assert predicted["latency_ms"] == pytest.approx(sum(block["latency_ms"] for block in predicted["blocks"]))
    limit = 0.9 * ok("ofa-table", "predict", "t.lut", "--space", "mine", "--architecture", "largest")["latency_ms"]
    found = ok("ofa-search", "--table", "t.lut", "--space", "mine", "--max-latency-ms", limit, "--generations", "20")
    assert found["predicted_latency_ms"] <= limit
    code, out, _ = run("ofa-search", "--table", "t.lut", "--space", "mine", "--max-latency-ms", str(limit))
    assert code == 0
    assert "mine at" in out
    assert ok("ofa-table", "check", "t.lut")["errors"] == 0
    assert ok("ofa-table", "merge", "t.lut", _copy("t.lut"), "--out", "both.lut")["entries"] > 0
    with LatencyTable.read(Path("both.lut")) as both:
        assert both.store.names("space/") == ["space/mine"]


def _copy(name):
    Path("copy.lut").write_bytes(Path(name).read_bytes())
    return "copy.lut"


@pytest.mark.parametrize("space", ["three-stages"], indirect=True)
def test_a_changed_file_is_refused_and_works_under_another_name(run, ok, profiled):
    text = Path("moved.toml").read_text().replace("channels = 60", "channels = 64")
    Path("mine.toml").write_text(text)
    commands = (
        ("ofa-profile", *profiled),
        ("ofa-search", "--table", "t.lut", "--max-latency-ms", "9"),
        ("ofa-table", "predict", "t.lut", "--architecture", "smallest"),
    )
    for words in commands:
        code, _, err = run(*words, "--space", "mine.toml")
        assert code == 1
        assert "t.lut has another space named mine (stages 3: channels 60 there, 64 here)" in err
        assert err.count("\n") == 1
    Path("mine.toml").write_text(f'name = "wider"\n{text}')
    assert ok("ofa-profile", *profiled, "--space", "mine.toml")["reused"] > 5
    assert {reach["space"] for reach in ok("ofa-table", "show", "t.lut")["spaces"]} == {"mine", "wider"}


@pytest.mark.parametrize("space", ["fbnet-small"], indirect=True)
def test_a_csv_of_keys_and_latencies_becomes_a_table_of_the_space(ok, run, space):
    keys = find_space("mine.toml").keys(64)
    code, out, _ = run("ofa-table", "space", "mine.toml", "--keys")
    header, *rows = [line for line in out.splitlines() if line.endswith((",64,", "latency_ms"))]
    assert (code, header, len(rows)) == (0, "key,resolution,latency_ms", len(keys))
    Path("mine.csv").write_text("\n".join([header, *(f"{row}{0.1 + at / 100}" for at, row in enumerate(rows))]))
    words = ("ofa-table", "import", "mine.csv", "--format", "csv", "--target", "phone", "--out", "t.lut")
    imported = ok(*words, "--space", "mine.toml")
    assert (imported["space"], imported["resolutions"], imported["entries"]) == ("mine", [64], len(keys))
    Path("mine.toml").unlink()
    assert ok("ofa-table", "predict", "t.lut", "--space", "mine", "--architecture", "largest")["latency_ms"] > 1
    exported = ok("ofa-table", "export", "t.lut", "--format", "ofa-yaml", "--out", "out")
    assert exported["space"] == "mine"


@pytest.mark.parametrize("space", ["fbnet-small"], indirect=True)
def test_a_csv_that_lacks_an_entry_names_it(run, space):
    keys = find_space("mine.toml").keys(64)
    Path("mine.csv").write_text("\n".join(["key,latency_ms", *(f"{key},0.1" for key in keys[1:])]))
    words = ("ofa-table", "import", "mine.csv", "--format", "csv", "--target", "phone", "--out", "t.lut")
    code, _, err = run(*words, "--space", "mine.toml")
    assert code == 1
    assert f"mine.csv for mine at 64 px lacks 1 of {len(keys)} keys (the first: {keys[0]})" in err
    assert not Path("t.lut").exists()


# ofa-table space.


@pytest.mark.parametrize("name", ["tiny", "ofa-resnet50d", EXAMPLES / "darts-small.toml"], ids=str)
def test_a_space_is_drawn_stage_by_stage(run, ok, name):
    code, out, _ = run("ofa-table", "space", name)
    shown = ok("ofa-table", "space", name)
    assert code == 0
    space = find_space(str(name))
    assert [stage["name"] for stage in shown["stages"]] == list(space.stages)
    for stage in space.stages:
        assert f"\n{stage} " in out
    assert f"entries      {len(space.keys(space.resolutions_px[0]))} per resolution" in out
    assert "█" in out
    px = str(max(space.resolutions_px))
    assert shown["macs"][px]["largest"] == sum(stage["macs"] for stage in shown["stages"])


def test_the_number_of_networks_is_that_of_the_papers(ok):
    networks = {name: ok("ofa-table", "space", name)["networks"] for name in ("compofa-fixed-w1.0", "ofa-mbv3-w1.0")}
    assert networks["compofa-fixed-w1.0"] == 3**5
    assert networks["ofa-mbv3-w1.0"] == pytest.approx((9**2 + 9**3 + 9**4) ** 5)


def test_a_space_file_with_an_error_exits_with_1(run, tmp_path):
    (tmp_path / "bad.toml").write_text('family = "alternatives"\nclasses = 10\nresolutions = [32]\n')
    code, out, err = run("ofa-table", "space", "bad.toml")
    assert (code, out) == (1, "")
    assert err == "error: bad.toml: positions is missing; it must be a list of 1 to 128 tables\n"
