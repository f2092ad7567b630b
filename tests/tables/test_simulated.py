"""Tables of simulated targets, and what a search finds with them."""

import numpy as np
import pandas as pd
import pytest

import ofa_profiler
from ofa_nas.accuracy import Linear, write_members
from ofa_nas.spaces import find_space
from ofa_profiler.commands import table
from ofa_profiler.simulation.engine import Engine
from ofa_profiler.targets.target import all_targets, find_target
from ofa_tables.errors import UsageError
from ofa_tables.formats import find_format
from ofa_tables.formats.exchange import import_files
from ofa_tables.store.merge import merge_tables
from ofa_tables.table import LatencyTable

OFA, FIXED = find_space("ofa-mbv3-w1.0"), find_space("compofa-fixed-w1.0")
ZU9EG = Engine.of("xilinx-zu9eg", find_target("xilinx-zu9eg").engine)


def test_every_entry_is_flagged_and_computed_again_without_noise(lut):
    result = ofa_profiler.profile("xilinx-zu9eg", OFA, resolutions=[160, 192, 224], out=lut)
    summary = result.summary
    assert summary["computed"] + summary["reused"] == summary["entries"]
    assert (summary["measured"], summary["flagged"]) == (0, summary["entries"])
    assert summary["computed"] > 0 < summary["reused"]
    with result.table as opened:
        assert opened.simulated
        assert opened.identity.runtime == "simulated"
        assert {entry.flags for entry in opened.entries} == {("simulated",)}
        ofa_profiler.profile("xilinx-zu9eg", OFA, resolutions=[192], out="again.lut")
        with LatencyTable.read(lut.with_name("again.lut")) as again:
            assert all(opened.entry(entry.key).latency_ms == entry.latency_ms for entry in again.entries)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"threads": 4}, "--threads"),
        ({"precision": "fp32"}, "computes in int8"),
        ({"runtime": "onnxruntime"}, "--runtime"),
        ({"blocks": "alone"}, "--blocks"),
        ({"seconds": 60.0}, "--seconds"),
        ({"settings": {"governor": "performance"}}, "--set"),
    ],
)
def test_flags_for_devices_are_refused(flags, message):
    with pytest.raises(UsageError, match=f"xilinx-zu9eg is simulated and does not support .*{message}"):
        ofa_profiler.profile("xilinx-zu9eg", FIXED, resolutions=[128], out="t.lut", **flags)


def test_a_merge_of_imported_tables_keeps_the_mark_of_each_entry(lut, tmp_path, call):
    call(table, "export", lut, "--format", "csv", "--out", "simulated.csv")
    rows = pd.read_csv("simulated.csv")
    rows.assign(latency_ms=rows.latency_ms * 2, mean_ms=rows.mean_ms * 2, flags="").to_csv("measured.csv", index=False)
    for name in ("simulated", "measured"):
        import_files([tmp_path / f"{name}.csv"], find_format("csv"), OFA, "zu9eg", tmp_path / f"{name}.lut")
    with LatencyTable.read(tmp_path / "simulated.lut") as one, LatencyTable.read(tmp_path / "measured.lut") as two:
        assert not two.simulated
        merge_tables(two, one, tmp_path / "both.lut")
    with LatencyTable.read(tmp_path / "both.lut") as both:
        assert both.simulated
        assert all("simulated" in entry.flags for entry in both.entries)


def test_a_simulated_table_is_not_merged_with_a_measured_one(lut, make_table, call):
    code, _, err = call(table, "merge", lut, make_table(), "--out", "both.lut")
    assert (code, "simulated" in err) == (1, True)


def test_shipped_simulated_targets_say_so():
    found = [target for target in all_targets().values() if target.engine]
    assert {target.name for target in found} == {"xilinx-zu9eg", "xilinx-zu3eg"}
    for target in found:
        assert (target.connection, target.runtimes) == ("simulated", ("simulated",))
        assert target.description.startswith("simulated")


def test_a_user_declares_an_engine_that_inherits_parameters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets.toml").write_text('[mine]\nlike = "xilinx-zu9eg"\n[mine.engine]\noverhead_us = 500\n')
    mine = ofa_profiler.profile("mine", FIXED, resolutions=[128])
    assert str(mine.path) == "mine-simulated-int8-t1-b1.lut"
    with mine.table as opened:
        assert opened.device["engine"]["dense_macs_per_s"] == ZU9EG.dense_macs_per_s
        assert all(entry.latency_ms > 0.5 for entry in opened.entries)


def test_a_search_for_the_fpga_takes_no_7x7_kernels_where_one_for_a_cpu_takes_many(note10, tmp_path):
    space = find_space("ofa-mbv3-w1.2")
    cpu = tmp_path / "note10.lut"
    import_files([note10 / "160_lookup_table.yaml"], find_format("ofa-yaml"), space, "note10", cpu)
    assert _share_of_7x7(cpu, space) >= 0.3
    fpga = ofa_profiler.profile("xilinx-zu9eg", space, resolutions=[160], out=tmp_path / "zu9eg.lut").path
    assert _share_of_7x7(fpga, space) == 0


def _share_of_7x7(path, space):
    """The share of 7×7 kernels of the best network, halfway between the smallest and the largest one of 3×3 kernels.

    The accuracy model is a stand-in: each block, its expand ratio and its kernel size add to the accuracy.
    """
    weights = np.full((1, 128), 0.0, dtype=np.float32)
    weights[0, :60] = np.tile([0.0020, 0.0022, 0.0024], 20)  # kernels 3, 5, 7
    weights[0, 60:120] = np.tile([0.0, 0.0004, 0.0008], 20)  # expand ratios 3, 4, 6
    model = path.with_suffix(".npz")
    write_members(model, [[Linear(weights, np.array([0.7], dtype=np.float32))]])
    with LatencyTable.read(path) as opened:
        ends = [{"ks": 3, "e": expand, "d": depth, "r": 160} for expand, depth in ((3, 2), (6, 4))]
        limit_ms = float(np.mean(ofa_profiler.predict(opened, ends, space)))
        best = ofa_profiler.search(opened, limit_ms, space, accuracy=str(model)).architecture.to_json()
    used = [best["ks"][4 * stage + at] for stage, depth in enumerate(best["d"]) for at in range(depth)]
    return used.count(7) / len(used)
