"""The published tables of the Samsung Note 10 give their known sums."""

import pytest
import yaml

from ofa_nas.spaces import Architecture, all_spaces, find_space
from ofa_tables.formats import find_format
from ofa_tables.formats.exchange import export_table, import_files
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.table import LatencyTable

SPACE = find_space("ofa-mbv3-w1.2")
NAMES = ["160_lookup_table.yaml", "224_lookup_table.yaml"]


@pytest.fixture
def table(note10, tmp_path):
    path = tmp_path / "note10.lut"
    import_files([note10 / name for name in NAMES], find_format("ofa-yaml"), SPACE, "note10", path)
    with LatencyTable.read(path) as table:
        yield table


@pytest.mark.parametrize(
    ("resolution_px", "kernel", "expand", "depth", "latency_ms"),
    [
        (160, 3, 3, 2, 9.8903),
        (160, 7, 6, 4, 47.7733),
        (224, 3, 3, 2, 17.7691),
        (224, 7, 6, 4, 92.3980),
    ],
)
def test_uniform_networks_have_their_known_latency(table, resolution_px, kernel, expand, depth, latency_ms):
    genes = {"ks": (kernel,) * 20, "e": (expand,) * 20, "d": (depth,) * 5}
    population = SPACE.encode([Architecture(genes, resolution_px)])
    assert LatencyModel(table, SPACE).predict(population)[0] == pytest.approx(latency_ms, abs=1e-4)


def test_the_smallest_and_the_largest_network_are_the_uniform_ones(table):
    model = LatencyModel(table, SPACE)
    assert model.cheapest([160])[0] == pytest.approx(9.8903, abs=1e-4)
    assert model.dearest([224])[0] == pytest.approx(92.3980, abs=1e-4)


def test_an_export_equals_the_published_file(table, note10, tmp_path):
    exported = export_table(table, find_format("ofa-yaml"), tmp_path / "out", all_spaces())
    assert exported.space is SPACE
    for name in NAMES:
        written, published = ((folder / name).read_text() for folder in (tmp_path / "out", note10))
        assert yaml.safe_load(written) == yaml.safe_load(published)
