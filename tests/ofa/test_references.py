"""The references match the published networks, including exact parameter counts where published."""

import pytest

from ofa_nas.references import FAMILY, REFERENCES, measured_references
from ofa_nas.spaces import all_spaces
from ofa_tables.identity import Identity
from ofa_tables.inspection.summary import summarise
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.store.merge import merge_tables
from ofa_tables.table import REFERENCE, LatencyTable

NAMED = {reference.name: reference for reference in REFERENCES}
EVERY_ROUND = range(6)

every_reference = pytest.mark.parametrize("reference", REFERENCES, ids=NAMED)


@every_reference
def test_macs_and_parameters_are_the_published_ones(reference):
    assert reference.block.macs == pytest.approx(reference.macs, rel=0.01)
    assert reference.unfolded_parameters == pytest.approx(reference.parameters, rel=0.01)


# num_params of torchvision. MnasNet and ProxylessNAS: pytorchcv, which loads the published weights.
PARAMETERS = {
    "mobilenet-v2": 3_504_872,
    "mobilenet-v3-small": 2_542_856,
    "mobilenet-v3-large": 5_483_032,
    "mnasnet-a1": 3_887_038,
    "proxylessnas-mobile": 4_080_512,
    "efficientnet-b0": 5_288_548,
    "resnet-50": 25_557_032,
}


def test_no_weight_is_missing():
    assert {name: reference.unfolded_parameters for name, reference in NAMED.items()} == PARAMETERS


# Output of each stage, from the tables of the papers: (channels, px).
STAGES = {
    "mobilenet-v2": ((32, 112), (16, 112), (24, 56), (32, 28), (64, 14), (96, 14), (160, 7), (320, 7), (1280, 7)),
    "mobilenet-v3-small": ((16, 112), (16, 56), (24, 28), (40, 14), (48, 14), (96, 7), (576, 7)),
    "mobilenet-v3-large": ((16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (160, 7), (960, 7)),
    "mnasnet-a1": ((32, 112), (16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (160, 7), (320, 7), (1280, 7)),
    "proxylessnas-mobile": (
        (32, 112),
        (16, 112),
        (32, 56),
        (40, 28),
        (80, 14),
        (96, 14),
        (192, 7),
        (320, 7),
        (1280, 7),
    ),
    "efficientnet-b0": ((32, 112), (16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (192, 7), (320, 7), (1280, 7)),
    "resnet-50": ((64, 112), (64, 56), (256, 56), (512, 28), (1024, 14), (2048, 7)),
}


@every_reference
def test_stage_outputs_are_those_of_the_paper(reference):
    values = iter([(3, 224, 224), *reference.block.shapes[1:]])
    assert all((channels, px, px) in values for channels, px in STAGES[reference.name])
    assert reference.block.output_shape == (1000,)


def test_names_and_accuracies_are_plausible():
    assert set(NAMED) == set(PARAMETERS) == set(STAGES)
    assert all(0.6 < reference.top1 < 0.8 and reference.source for reference in REFERENCES)


# In a table.


@pytest.fixture
def table(tmp_path):
    with LatencyTable.create(tmp_path / "t.lut", Identity("here", "f", "onnxruntime", "1"), {}) as table:
        yield table


def measure(table, name, rounds, *samples_ns):
    block = NAMED[name].block
    table.store.add_network(block.key, FAMILY, {"name": name}, REFERENCE)
    table.add(
        [
            Measurement(f"{name}-{r}", block.key, round=r, **statistics([samples_ns[r % len(samples_ns)]]))
            for r in rounds
        ]
    )


def test_references_measured_in_both_passes_are_reported_with_published_values(table):
    measure(table, "resnet-50", EVERY_ROUND, 30_000_000, 32_000_000)
    measure(table, "mobilenet-v2", EVERY_ROUND, 5_000_000)
    measure(table, "mnasnet-a1", EVERY_ROUND[::2], 5_000_000)
    fast, slow = measured_references(table)
    assert (fast.name, fast.passes_ms, fast.latency_ms) == ("mobilenet-v2", (5.0, 5.0), 5.0)
    assert (slow.name, slow.passes_ms, slow.latency_ms) == ("resnet-50", (30.0, 32.0), 31.0)
    assert (slow.top1, slow.macs, slow.parameters) == (0.7613, 4089e6, 25_557_032)


def test_a_reference_is_not_an_entry_and_is_kept_when_tables_are_merged(table, tmp_path):
    measure(table, "mobilenet-v2", EVERY_ROUND, 5_000_000)
    assert table.entries == []
    assert summarise(table, all_spaces()).networks == 1
    other = tmp_path / "other.lut"
    with LatencyTable.create(other, table.identity, {}) as opened:
        measure(opened, "resnet-50", EVERY_ROUND, 30_000_000)
        merge_tables(table, opened, tmp_path / "both.lut")
    with LatencyTable.read(tmp_path / "both.lut") as both:
        assert [measured.name for measured in measured_references(both)] == ["mobilenet-v2", "resnet-50"]
