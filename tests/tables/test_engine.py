"""The analytic latency model of a simulated target, and its fit to measured latencies."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import ofa_profiler
from ofa_agent import operators as ops
from ofa_nas.references import REFERENCES
from ofa_nas.spaces import find_space
from ofa_profiler.commands import profile, table
from ofa_profiler.simulation.engine import Engine, layers
from ofa_profiler.simulation.fit import fit
from ofa_profiler.targets.target import find_target
from ofa_tables.errors import FileError, UsageError
from ofa_tables.table import LatencyTable

OFA, FIXED = find_space("ofa-mbv3-w1.0"), find_space("compofa-fixed-w1.0")
ZU9EG = Engine.of("xilinx-zu9eg", find_target("xilinx-zu9eg").engine)


def test_a_layer_takes_the_longer_of_arithmetic_and_memory_and_the_overhead():
    conv = ops.Block("conv", (32, 10, 10), (ops.Conv(32, 64, 1), ops.Activation("relu")))
    engine = replace(ZU9EG, overhead_us=7, dense_macs_per_s=1e9, memory_bytes_per_s=1e9, on_chip_bytes=1e9)
    assert engine.latency_ms(conv, 1, "int8") == pytest.approx(32 * 64 * 100 / 1e6 + 0.007)
    slow_memory = replace(engine, memory_bytes_per_s=1e6, dense_macs_per_s=1e12)
    assert slow_memory.latency_ms(conv, 1, "int8") == pytest.approx((32 * 64 + 64) / 1e3 + 0.007)
    too_small = replace(slow_memory, on_chip_bytes=1)
    assert too_small.latency_ms(conv, 1, "int8") == pytest.approx((32 * 64 + 64 + 9600) / 1e3 + 0.007)
    assert too_small.latency_ms(conv, 2, "fp16") == pytest.approx(2 * (32 * 64 + 64 + 2 * 9600) / 1e3 + 0.007)


def test_channels_are_padded_and_depthwise_kernels_have_their_own_rates():
    first, depthwise = ops.Conv(3, 24, 3, 2), ops.Conv(24, 24, 7, groups=24)
    (dense,) = layers(ops.Block("first", (3, 32, 32), (first,)), channels=16)
    assert (dense.kind, dense.work) == ("dense", 16 * 32 * 9 * 256)
    (wide,) = layers(ops.Block("depthwise", (24, 16, 16), (depthwise,)), channels=16)
    assert (wide.kind, wide.work, wide.kernel_size) == ("depthwise", 32 * 49 * 256, 7)
    fast, slow = (replace(ZU9EG, depthwise_macs_per_s={3: 1e9, 7: rate}) for rate in (1e9, 1e8))
    block = ops.Block("depthwise", (24, 16, 16), (depthwise,))
    assert slow.latency_ms(block, 1, "int8") > 9 * fast.latency_ms(block, 1, "int8")


@pytest.mark.parametrize(
    ("name", "published_ms"),
    [
        ("xilinx-zu9eg", {"mobilenet-v2": 4.08, "resnet-50": 14.1}),
        ("xilinx-zu3eg", {"mobilenet-v2": 7.34, "resnet-50": 30.8}),
    ],
)
def test_the_shipped_engines_have_the_order_of_the_published_latencies(name, published_ms):
    """The published latencies also contain the preparation of the image on the CPU, so the model is faster."""
    engine = Engine.of(name, find_target(name).engine)
    for reference in REFERENCES:
        if reference.name in published_ms:
            assert 0.4 < engine.latency_ms(reference.block, 1, "int8") / published_ms[reference.name] < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": None}, "has no channels"),
        ({"clock": 3}, "unknown key 'clock'"),
        ({"memory_bytes_per_s": 0}, "memory_bytes_per_s must be a positive number"),
        ({"depthwise_macs_per_s": {"3": "fast"}}, "depthwise_macs_per_s 3 must be a positive number"),
        ({"depthwise_macs_per_s": {}}, "takes depthwise_macs_per_s"),
    ],
)
def test_a_wrong_engine_is_refused(change, message):
    declared = {**find_target("xilinx-zu9eg").engine, **change}
    with pytest.raises(FileError, match=message):
        Engine.of("mine", {key: value for key, value in declared.items() if value is not None})


def test_a_fit_recovers_the_parameters_that_the_measurements_have(tmp_path):
    truth = ZU9EG.scaled(np.array([2.0, 0.5, 1.5, 3.0]))
    rows = [(block.key, truth.latency_ms(block, 1, "int8")) for block in OFA.blocks(224)]
    path = tmp_path / "measured.csv"
    pd.DataFrame(rows, columns=["key", "latency_ms"]).to_csv(path, index=False)
    fitted, report = fit(ZU9EG, path, OFA, 1, "int8")
    assert report.error_before > 0.3
    assert report.error < 0.02
    for scale, true in zip(report.scales.values(), (2.0, 0.5, 1.5, 3.0), strict=True):
        assert scale == pytest.approx(true, rel=0.15)
    assert fitted.latency_ms(OFA.blocks(160)[30], 1, "int8") == pytest.approx(
        truth.latency_ms(OFA.blocks(160)[30], 1, "int8"), rel=0.1
    )


def test_a_fit_to_few_whole_networks_stays_near_the_declared_parameters(call, tmp_path):
    architecture = json.dumps({"ks": 3, "e": 3, "d": 2, "r": 160})
    pd.DataFrame([(architecture, 5.0)], columns=["key", "latency_ms"]).to_csv("measured.csv", index=False)
    words = ("--target", "xilinx-zu9eg", "--resolutions", "160", "--fit", "measured.csv", "--out", "fitted.lut")
    code, out, err = call(profile, *words, "--json")
    assert (code, "engine fitted to measured.csv" in err) == (0, True)
    fitted = json.loads(out)["fit"]
    assert fitted["error"] < 0.02
    assert all(0.9 < scale < 10 for scale in fitted["scales"].values())
    with LatencyTable.read(tmp_path / "fitted.lut") as opened:
        (latency_ms,) = ofa_profiler.predict(opened, [json.loads(architecture)], OFA)
        assert latency_ms == pytest.approx(5.0, rel=0.02)
        assert opened.simulated
    assert "fitted" in call(table, "show", "fitted.lut")[1]
    code, _, err = call(profile, *words[:4], "--out", "fitted.lut")
    assert (code, "made under different conditions" in err) == (1, True)


def test_a_fit_refuses_what_was_not_measured(lut, tmp_path, call):
    call(table, "export", lut, "--format", "csv", "--out", tmp_path / "simulated.csv")
    with pytest.raises(FileError, match=r"line 2: .* is simulated"):
        fit(ZU9EG, tmp_path / "simulated.csv", OFA, 1, "int8")
    (tmp_path / "other.csv").write_text("key,latency_ms\nConv_9,3\n")
    with pytest.raises(FileError, match=r"line 2: ofa-mbv3-w1\.0 has no block Conv_9"):
        fit(ZU9EG, tmp_path / "other.csv", OFA, 1, "int8")
    with pytest.raises(UsageError, match="--fit scales the engine of a simulated target"):
        ofa_profiler.profile("local", FIXED, fit="measured.csv")
