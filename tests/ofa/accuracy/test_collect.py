"""ofa-accuracy collect, with a supernet of random weights and the digits of scikit-learn."""

import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="supernets need torch")
pytest.importorskip("sklearn", reason="scikit-learn brings the digits")

from ofa_nas.accuracy.collect import networks_to_collect  # noqa: E402
from ofa_nas.accuracy.pairs import read_pairs  # noqa: E402
from ofa_nas.spaces import find_space  # noqa: E402
from ofa_nas.supernet import build_supernet, save_supernet  # noqa: E402

TINY = find_space("tiny")
pytestmark = pytest.mark.real


@pytest.fixture
def collect(tmp_path):
    torch.manual_seed(0)
    save_supernet(tmp_path / "supernet.pth", build_supernet(TINY))

    def run(*more, out="pairs.jsonl", processes=1):
        start = [sys.executable, "-m"]
        if processes > 1:
            start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
        arguments = ["--checkpoint", tmp_path / "supernet.pth", "--data", "digits", "--images", "60", "--threads", "1"]
        arguments += ["--statistics-images", "50", "--networks", "6", *more, "--out", tmp_path / out]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [*start, "ofa_profiler.commands.accuracy", "collect", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        run.reported = done
        return read_pairs(tmp_path / out)

    return run


def test_a_collection_resumes_and_processes_share_it(collect, tmp_path):
    whole = collect()
    assert len({str(pair.architecture) for pair in whole.pairs}) == 6
    assert whole.about["images"] == 60
    for pair in whole.pairs:
        assert pair.accuracy == pytest.approx(np.mean(pair.halves), abs=1e-6)
    text = (tmp_path / "pairs.jsonl").read_text()
    (tmp_path / "pairs.jsonl").write_text("".join(text.splitlines(keepends=True)[:3]) + '{"architecture": {"ks"')
    assert collect() == whole
    assert collect(out="shared.jsonl", processes=2) == whole


def test_networks_are_different_and_ordered_by_resolution():
    networks = networks_to_collect(TINY, 300, TINY.resolutions_px, None, 0)
    assert len({str(network) for network in networks}) == 300
    sizes = [network.resolution_px for network in networks]
    assert sizes == sorted(sizes)
    assert set(sizes) == set(TINY.resolutions_px)
    macs = TINY.macs(TINY.encode(networks))
    assert macs.max() > 5 * macs.min()


@pytest.mark.parametrize("with_table", [False, True])
def test_a_larger_count_returns_a_superset(make_latency, with_table):
    latency = make_latency("tiny", TINY.resolutions_px) if with_table else None
    few, more = (
        {str(each) for each in networks_to_collect(TINY, count, TINY.resolutions_px, latency, 0)}
        for count in (300, 1500)
    )
    assert few < more
    assert len(more) == 1500


def test_another_number_of_statistics_images_is_refused(collect):
    collect()
    with pytest.raises(AssertionError, match="was started with statistics_images 50; use the same values"):
        collect("--statistics-images", "40")


def test_too_few_networks_are_reported_before_they_are_evaluated(collect):
    collect()
    expected = "6 pairs may be too few for ofa-accuracy fit, which needs about 100; run the same command"
    assert collect.reported.stderr.startswith(expected)


def test_broken_images_are_counted_and_reported(collect, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow decodes images")
    for number in range(40):
        path = tmp_path / "images" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (30, 30), (6 * number, 0, 0)).save(path)
    for path in (tmp_path / "images" / "cat").glob("0*"):
        path.write_bytes(b"no image")
    save_supernet(tmp_path / "supernet.pth", build_supernet(TINY, 2))
    collect("--data", tmp_path / "images")
    assert "5 images could not be decoded; other images replaced them" in collect.reported.stdout


def test_data_with_another_number_of_classes_is_refused(collect, tmp_path):
    save_supernet(tmp_path / "supernet.pth", build_supernet(TINY, 7))
    with pytest.raises(AssertionError, match="the checkpoint has 7 classes and --data digits has 10"):
        collect()


def test_with_a_table_networks_are_spread_evenly_over_latency(make_latency):
    latency = make_latency("tiny", TINY.resolutions_px)
    networks = networks_to_collect(TINY, 200, TINY.resolutions_px, latency, 0)
    counts, _ = np.histogram(latency.predict(TINY.encode(networks)), bins=10)
    assert len(networks) == 200
    assert counts.min() >= 0.04 * 200
