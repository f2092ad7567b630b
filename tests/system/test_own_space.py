"""A space of alternatives on this machine: profile, predict, search with a check on the device, compare."""

import json
import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "spaces"


@pytest.mark.parametrize(
    ("example", "px", "runtime"), [("fbnet-small", 64, "by-macs"), ("darts-small", 32, "onnxruntime")]
)
def test_a_space_of_alternatives_is_profiled_searched_and_compared(ofa, example, px, runtime):
    source = shutil.copy(EXAMPLES / f"{example}.toml", ofa.folder)
    words = ("--target", "local", "--runtime", runtime, "--resolutions", px, "--effort", "quick", "--out", "t.lut")
    profiled = ofa("ofa-profile", "--space", f"{example}.toml", *words, "--json")
    assert profiled.code == 0, profiled.err
    assert profiled.json["measured"] == profiled.json["entries"] > 10
    Path(source).unlink()  # the table has its definition
    predicted = ofa("ofa-table", "predict", "t.lut", "--space", example, "--architecture", "largest", "--json").json
    limit = ("--space", example, "--max-latency-ms", predicted["latency_ms"])
    found = ofa("ofa-search", "--table", "t.lut", *limit, "--generations", "30", "--out", "found.json", "--json")
    assert found.code == 0, found.err
    (ofa.folder / "networks.json").write_text(json.dumps([found.json["architecture"], "smallest", "random:1"]))
    compared = ofa("ofa-compare", "--table", "t.lut", "--networks", "networks.json", "--calibrate", "4", "--json")
    assert compared.code == 0, compared.err
    assert compared.json["networks"] == 3
    shown = ofa("ofa-table", "show", "t.lut", "--json").json
    assert list(shown["calibrations"]) == [example]
