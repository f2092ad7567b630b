"""Report of a comparison: a self-contained page, and a CSV file of the same networks."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from ofa_nas.references import MeasuredReference
from ofa_nas.spaces import find_space
from ofa_profiler.comparison.statistics import ComparedNetwork, Comparison
from ofa_profiler.report import write_report
from ofa_profiler.report.format import architecture_by_stage, condition_facts, device_facts, duration, latency, percent
from ofa_tables.errors import FileError
from ofa_tables.identity import Identity
from ofa_tables.model.calibration import Calibration

STAGES = ("first layers", "body", "last layers")
DEVICE = {
    "chip": "ARMv8",
    "clusters": [{"cpus": [0, 1, 2, 3], "max_mhz": 2035}, {"cpus": [4, 5], "max_mhz": 0}],
    "memory_bytes": str(8 << 30),
    "condition": {"governor": "schedutil", "clock_mhz": 2035, "temperatures_c": {"cpu": 48.5}, "load": 0.25},
}
HOSTILE = '"><script>alert(1)</script></style></svg>$\\frac{1}{0}$\x00\x1b[31m\ud800&amp;\n漢字'


def make(tested=12, calibration_count=4, device=DEVICE):
    rng = np.random.default_rng(0)
    space = find_space("ofa-mbv3-w1.0")
    networks = []
    for at, architecture in enumerate(space.decode(space.sample(tested + calibration_count, rng, [160, 224]))):
        macs = float(rng.uniform(1e8, 3e8))
        stages = tuple(macs / 1e7 * np.array([0.1, 0.7, 0.2]))
        passes = (sum(stages) * 1.05 * float(rng.normal(1, 0.02)), sum(stages) * 1.05 * float(rng.normal(1, 0.02)))
        flags = ("unstable",) if at == 0 else ()
        networks.append(
            ComparedNetwork(
                f"n{at:02d}",
                f"network:{at}",
                architecture.to_json(),
                architecture.resolution_px,
                macs,
                sum(stages),
                stages,
                passes,
                flags,
            )
        )
    identity = Identity("pixel-1", "abc", "tflite", "2.14.0")
    calibration = Calibration(1.05, calibration_count) if calibration_count else None
    return Comparison(
        "pixel.lut",
        space.name,
        identity,
        device,
        {"governor": "schedutil", "clock_mhz": 1900},
        STAGES,
        tuple(networks[:tested]),
        tuple(networks[tested:]),
        calibration,
        1.7e9,
        754.0,
    )


class Page(HTMLParser):
    """Tags, ids, attributes, and text outside <style>."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.ids, self.attributes, self.words, self.open = [], [], [], [], []
        self.feed(path.read_text("utf-8"))
        self.close()
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self.open[-1:]:
            self.words.append(data)


def test_the_page_starts_with_excess_error_noise_and_macs_line(tmp_path):
    comparison = make()
    text = Page(write_report(comparison, tmp_path)).text
    for value in (comparison.calibrated.excess_rms, comparison.noise.mape, comparison.macs_baseline.excess_rms):
        assert percent(value).replace("\N{NO-BREAK SPACE}", " ") in text[: text.index("Predicted and measured")]


def test_the_page_loads_no_other_files(tmp_path):
    path = write_report(make(), tmp_path)
    html = path.read_text("utf-8")
    assert not re.findall(r"(?<!xmlns=\")https?://", html)
    assert not re.findall(r"@import|url\((?!#)", html)
    page = Page(path)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert {value for name, value in page.attributes if name == "href" and not value.startswith("#")} == {
        "comparison.csv"
    }
    assert page.tags.count("svg") == 6


def test_ids_of_plots_are_unique_and_all_references_exist(tmp_path):
    page = Page(write_report(make(), tmp_path))
    assert len(page.ids) == len(set(page.ids))
    values = " ".join(value for _, value in page.attributes if value)
    assert set(re.findall(r"url\(#([^)]+)\)", values)) <= set(page.ids)
    assert {value[1:] for name, value in page.attributes if name == "href" and value[0] == "#"} <= set(page.ids)


def test_plots_use_the_colours_of_the_page(tmp_path):
    html = write_report(make(), tmp_path).read_text("utf-8")
    for name in set(re.findall(r"var\(--([\w-]+)\)", html)) - {"c"}:
        assert f"--{name}:" in html
    assert not re.findall(r"#0[1-8]0[1-8]0[1-8]", html)


def test_points_have_the_network_name_as_title(tmp_path):
    html = write_report(make(), tmp_path).read_text("utf-8")
    assert html.count("<title>n05 · predicted ") == 3


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return Page(write_report(make(tested=3), tmp_path_factory.mktemp("usual")))


def hostile(comparison, field):
    """Return the comparison with hostile text in one field of it, its networks, its identity, or its device."""
    if field in ("name", "flags"):
        value = HOSTILE if field == "name" else (HOSTILE,)
        networks = [dataclasses.replace(network, **{field: value}) for network in comparison.networks]
        return dataclasses.replace(comparison, networks=tuple(networks))
    if field in ("target", "runtime"):
        return dataclasses.replace(comparison, identity=dataclasses.replace(comparison.identity, **{field: HOSTILE}))
    if field == "device":
        return dataclasses.replace(comparison, device={**DEVICE, "chip": HOSTILE})
    return dataclasses.replace(comparison, **{field: (HOSTILE,) * len(STAGES) if field == "stages" else HOSTILE})


@pytest.mark.parametrize("field", ["name", "flags", "stages", "table", "space", "target", "runtime", "device"])
def test_hostile_text_is_escaped(tmp_path, usual, field):
    page = Page(write_report(hostile(make(tested=3), field), tmp_path))
    assert set(page.tags) == set(usual.tags)
    assert {name for name, _ in page.attributes} == {name for name, _ in usual.attributes}
    assert '"><script>alert(1)</script></style></svg>' in page.text
    assert not {"\x00", "\x1b"} & set(page.text)


@pytest.mark.parametrize(("tested", "calibration_count"), [(0, 0), (0, 3), (1, 0), (2, 1), (3, 2), (150, 3)])
def test_a_page_is_written_for_any_number_of_networks(tmp_path, tested, calibration_count):
    page = Page(write_report(make(tested, calibration_count), tmp_path))
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text
    assert len(pd.read_csv(tmp_path / "comparison.csv")) == tested + calibration_count


def test_a_network_without_a_latency_is_only_in_the_csv(tmp_path):
    comparison = make()
    broken = dataclasses.replace(comparison.networks[0], passes_ms=(0.0, float("nan")))
    page = Page(write_report(dataclasses.replace(comparison, networks=(broken, *comparison.networks[1:])), tmp_path))
    assert "could not be evaluated" in page.text
    assert "1 of 12 networks have no latency" in page.text
    assert len(pd.read_csv(tmp_path / "comparison.csv")) == 16


@pytest.mark.parametrize(
    "device",
    [
        {},
        {"condition": None, "clusters": None, "memory_bytes": None, "chip": None},
        {"clusters": "four", "memory_bytes": "much", "runtimes": ["a", 1], "condition": {"temperatures_c": [1]}},
    ],
)
def test_a_page_is_written_for_an_incomplete_device_description(tmp_path, device):
    text = Page(write_report(make(device=device), tmp_path)).text
    assert "Device condition" in text
    assert "None" not in text


def test_the_csv_contains_the_comparison(tmp_path):
    comparison = make()
    write_report(comparison, tmp_path)
    table = pd.read_csv(tmp_path / "comparison.csv")
    tested = table[table["role"] == "test"]
    assert list(table["role"]) == ["test"] * 12 + ["calibration"] * 4
    assert [json.loads(text) for text in tested["architecture"]] == [n.architecture for n in comparison.networks]
    assert tested["raw_ms"].to_numpy() == pytest.approx(comparison.raw_ms)
    assert tested["calibrated_ms"].to_numpy() == pytest.approx(comparison.calibrated_ms)
    np.testing.assert_allclose(tested[["pass_1_ms", "pass_2_ms"]].to_numpy().T, comparison.passes_ms)
    excess = np.sqrt(max(0.0, (tested["calibrated_error_1"] * tested["calibrated_error_2"]).mean()))
    assert excess == pytest.approx(comparison.calibrated.excess_rms)
    assert table["flags"].fillna("")[0] == "unstable"


REFERENCES = (
    MeasuredReference("mobilenet-v3-large", (5.1, 5.2), 0.752, 217e6, 5_483_032, "a paper"),
    MeasuredReference("resnet-50", (30.0, 32.0), 0.7613, 4089e6, 25_557_032, HOSTILE),
)


@pytest.mark.parametrize("tested", [0, 3])
def test_published_networks_have_a_separate_section(tmp_path, tested):
    comparison = dataclasses.replace(make(tested), references=REFERENCES)
    text = Page(write_report(comparison, tmp_path)).text.replace("\N{NO-BREAK SPACE}", " ")
    section = text[text.index("Reference networks") : text.index("Device condition")]
    for reported in (
        "mobilenet-v3-large",
        "224 px",
        "5.100 ms",
        "5.200 ms",
        "75.2 %",
        "217 M",
        "5.48 M",
        "a paper",
        "4,089 M",
        "25.6 M",
    ):
        assert reported in section
    assert ("Latencies of 2 reference networks on this device." in text) == (tested == 0)
    for judged in ("Excess error, ", "All results", "0 networks"):
        assert judged not in text or tested
    rows = pd.read_csv(tmp_path / "comparison.csv").set_index("role").loc["reference"]
    assert list(rows["name"]) == ["mobilenet-v3-large", "resnet-50"]
    assert list(rows["pass_1_ms"]) == [5.1, 30.0]
    assert rows["raw_ms"].isna().all()
    assert [one["name"] for one in comparison.measured][-2:] == list(rows["name"])
    assert "Reference networks" not in Page(write_report(make(), tmp_path)).text


def test_an_earlier_report_is_replaced(tmp_path):
    write_report(make(tested=3), tmp_path / "new" / "folder")
    path = write_report(make(tested=5), tmp_path / "new" / "folder")
    assert sorted(file.name for file in path.parent.iterdir()) == ["comparison.csv", "report.html"]
    assert "5\N{NO-BREAK SPACE}networks" in path.read_text("utf-8")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match=r"taken.*--out"):
        write_report(make(tested=1), tmp_path / "taken")


def test_pages_are_reproducible(tmp_path):
    one, two = write_report(make(), tmp_path / "a"), write_report(make(), tmp_path / "b")
    assert one.read_bytes() == two.read_bytes()


def test_architectures_are_formatted_by_stage_without_absent_blocks():
    architecture = {"ks": [7, 7, 5, 3, 3, 5, 3, 3], "e": [6, 6, 4, 3, 4, 4, 3, 3], "d": [3, 2], "r": 160}
    assert architecture_by_stage(architecture) == ["2×[k7 e6] [k5 e4]", "[k3 e4] [k5 e4]"]


@pytest.mark.parametrize("architecture", [{}, {"ks": [3], "e": [3]}, {"ks": [3], "e": [3], "d": [9]}, {"w": [0.65]}])
def test_architectures_with_other_genes_are_not_formatted(architecture):
    assert architecture_by_stage(architecture) == []


def test_numbers_have_units_and_typographic_minus_signs():
    plain = [percent(0.0089), percent(-0.045, signed=True), percent(0.0004), percent(-1e-9, signed=True), percent(None)]
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in plain] == ["0.9 %", "−4.5 %", "0.04 %", "+0.0 %", "–"]
    shown = [latency(value) for value in (0.0123456, 9.98765, 21.3412, 1234.5, 0.0)]
    assert [text.split("\N{NO-BREAK SPACE}")[0] for text in shown] == ["0.01235", "9.988", "21.34", "1,234", "0"]
    assert duration(754).replace("\N{NO-BREAK SPACE}", " ") == "12 min 34 s"


def test_missing_device_facts_are_left_out():
    facts = {what: value.replace("\N{NO-BREAK SPACE}", " ") for what, value in device_facts(DEVICE)}
    assert facts == {"Chip": "ARMv8", "Cores": "4 × 2,035 MHz + 2 cores", "Memory": "8.0 GiB"}
    assert "Clock" not in condition_facts({"governor": "", "clock_mhz": 0})
