"""A table that was measured with a command line tool of OpenVINO, from the first trial to the comparison."""

import pytest

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_a_table_by_benchmark_app(ofa):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    ofa.runtime = "command:benchmark_app"
    done = ofa.profile()
    assert done.code == 0, done.err
    assert (done.json["entries"], done.json["measured"], done.json["failed"]) == (36, 36, 0)
    table = "local-command-benchmark_app-fp32-t1-b1.lut"
    assert done.json["table"] == table
    shown = ofa("ofa-table", "show", table).out
    assert "(template " in shown
    assert "benchmark_app -m {model}" in shown
    compared = ofa("ofa-compare", "--table", table, "--networks", "2", "--calibrate", "2", "--json")
    assert compared.code == 0, compared.err
    (ofa.folder / "targets.toml").write_text("[command.benchmark_app]\niterations = 10\n")
    assert ofa.profile().fails(1, "was made under different conditions", "template", "--fresh")
    assert ofa("ofa-compare", "--table", table).fails(1, "template")
