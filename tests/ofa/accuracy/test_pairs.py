"""Pairs, and models fitted to them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from ofa_nas.accuracy import Mlp, read_members, write_members
from ofa_nas.accuracy.evaluation import quality
from ofa_nas.accuracy.pairs import Pair, Pairs, add_pair, begin_pairs, read_pairs
from ofa_nas.spaces import find_space
from ofa_profiler.commands.accuracy import command
from ofa_tables.errors import FileError, UsageError

TINY = find_space("tiny")
ABOUT = {"space": "tiny", "data": "digits", "checkpoint": "c0ffee", "images": 5000}


def make_pairs(count, noise=0.002, seed=0):
    """Pairs in which accuracy grows with MACs, plus noise."""
    rng = np.random.default_rng(seed)
    population = TINY.sample_spread(count, rng)
    truth = 0.6 + 0.05 * np.log(TINY.macs(population) / 1e6)
    noisy = (truth + noise * rng.standard_normal((3, count))).clip(0, 1)
    found = zip(TINY.decode(population), *noisy, strict=True)
    return Pairs(
        ABOUT, tuple(Pair(network, *map(float, (whole,)), (float(a), float(b))) for network, whole, a, b in found)
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pairs.jsonl"


def written(path, pairs):
    begin_pairs(path, pairs.about)
    for pair in pairs.pairs:
        add_pair(path, pair)


def test_pairs_are_read_as_written(path):
    pairs = make_pairs(5)
    written(path, pairs)
    assert read_pairs(path) == pairs


def test_an_incomplete_last_line_is_ignored_and_overwritten(path):
    pairs = make_pairs(3)
    written(path, pairs)
    path.write_text(path.read_text()[:-20])
    assert read_pairs(path).pairs == pairs.pairs[:2]
    assert begin_pairs(path, ABOUT).pairs == pairs.pairs[:2]
    add_pair(path, pairs.pairs[2])
    assert read_pairs(path) == pairs


def test_a_file_of_another_checkpoint_is_not_continued(path):
    begin_pairs(path, ABOUT)
    with pytest.raises(UsageError, match="was started with checkpoint c0ffee; use the same values, or another --out"):
        begin_pairs(path, ABOUT | {"checkpoint": "decade"})


@pytest.mark.parametrize(
    "line", ["[1]", '{"accuracy": 0.5}', "nonsense", '{"architecture": 3, "accuracy": 1, "halves": [1, 1]}']
)
def test_lines_that_are_not_pairs_are_refused(path, line):
    begin_pairs(path, ABOUT)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(FileError, match="is not a valid pairs file"):
        read_pairs(path)


def test_accuracies_above_one_are_refused(path):
    written(path, make_pairs(1))
    path.write_text(path.read_text().replace('"accuracy": 0', '"accuracy": 7'))
    with pytest.raises(FileError, match=r"accuracies .* are not between 0 and 1"):
        read_pairs(path)


def test_a_file_without_a_space_in_its_header_is_refused(path):
    path.write_text(json.dumps({"data": "digits"}) + "\n")
    with pytest.raises(FileError, match="has no header with the space"):
        read_pairs(path)


def test_a_network_is_held_out_in_every_file():
    one, other = make_pairs(400), make_pairs(400, seed=1)
    held_out = {str(pair.architecture) for pair in (*one.pairs, *other.pairs) if pair.is_held_out}
    learned = {str(pair.architecture) for pair in (*one.pairs, *other.pairs) if not pair.is_held_out}
    assert not held_out & learned
    assert 0.05 < len(held_out) / 800 < 0.15


def test_a_fitted_model_ranks_held_out_networks(tmp_path):
    pytest.importorskip("torch", reason="fitting needs torch")
    from ofa_nas.accuracy.fit import fit

    pairs = make_pairs(600)
    members = fit(pairs, TINY, 3, 0, lambda done, total: None)
    write_members(tmp_path / "a.npz", members)
    model = Mlp(TINY, read_members(tmp_path / "a.npz"), "a.npz")
    found = quality(model, pairs.only([pair.is_held_out for pair in pairs.pairs]), TINY)
    assert found.tau > 0.8
    assert found.rmse < 0.01
    assert found.within_95 > 0.6
    assert found.networks == sum(pair.is_held_out for pair in pairs.pairs)


def test_the_same_seed_fits_the_same_model():
    pytest.importorskip("torch", reason="fitting needs torch")
    from ofa_nas.accuracy.fit import fit

    once, again = (fit(make_pairs(120), TINY, 1, 7, lambda done, total: None) for _ in range(2))
    assert all((one.weight == other.weight).all() for one, other in zip(once[0], again[0], strict=True))


def test_fit_writes_a_model_and_evaluate_reports_the_same_quality(tmp_path, path):
    """Runs ofa-accuracy fit and evaluate."""
    pytest.importorskip("torch", reason="fitting needs torch")
    written(path, make_pairs(300))
    model = tmp_path / "a.npz"
    fit = invoke("fit", path, "--members", "2", "--out", model, "--json")
    assert fit.stderr.startswith("fitting an ensemble of 2 to 300 pairs\n")  # progress lines follow if it takes long
    fitted = json.loads(fit.stdout)
    assert (fitted["members"], fitted["pairs"], fitted["file"]) == (2, 300, str(model))
    held_out = sum(pair.is_held_out for pair in read_pairs(path).pairs)
    evaluated = reported("evaluate", model, path, "--json")
    assert evaluated == fitted
    assert (evaluated["networks"], evaluated["tau"] > 0.6) == (held_out, True)
    assert reported("evaluate", model, path, "--all", "--json")["networks"] == 300
    words = invoke("evaluate", model, path).stdout
    assert f"on {held_out} held-out networks: RMSE" in words
    assert "between the halves 0." in words
    assert "the model hardly ranks the networks" not in words


def test_a_model_that_hardly_ranks_networks_is_reported(tmp_path, path):
    pytest.importorskip("torch", reason="fitting needs torch")
    alike = tuple(replace(pair, accuracy=0.5, halves=(0.5, 0.5)) for pair in make_pairs(100).pairs)
    written(path, Pairs(ABOUT, alike))
    assert (
        "the model hardly ranks the networks"
        in invoke("fit", path, "--members", "1", "--out", tmp_path / "a.npz").stdout
    )


def test_an_output_that_cannot_be_written_is_reported_before_the_fit(tmp_path, path):
    pytest.importorskip("torch", reason="fitting needs torch")
    written(path, make_pairs(20))
    with pytest.raises(FileError, match=r"cannot write .*nowhere.*: No such file or directory; check that its folder"):
        invoke("fit", path, "--out", tmp_path / "nowhere" / "a.npz")


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_file_that_ends_within_its_first_line_is_started_over(path, share):
    first = json.dumps(ABOUT)
    path.write_text(first[: round(share * len(first))])
    assert begin_pairs(path, ABOUT).pairs == ()
    assert read_pairs(path).about == ABOUT


def test_fit_refuses_too_few_pairs(tmp_path, path):
    pytest.importorskip("torch", reason="fitting needs torch")
    written(path, make_pairs(20))
    with pytest.raises(UsageError, match="20 pairs are too few to fit"):
        invoke("fit", path, "--out", tmp_path / "a.npz")
    with pytest.raises(FileError, match=r"cannot read .*none\.jsonl"):
        invoke("evaluate", tmp_path / "a.npz", tmp_path / "none.jsonl")


def invoke(*words):
    return CliRunner().invoke(command, [*map(str, words)], catch_exceptions=False, standalone_mode=False)


def reported(*words):
    return json.loads(invoke(*words).stdout.splitlines()[-1])


def test_too_few_pairs_are_refused():
    pytest.importorskip("torch", reason="fitting needs torch")
    from ofa_nas.accuracy.fit import fit

    with pytest.raises(UsageError, match="20 pairs are too few to fit: 50 are needed"):
        fit(make_pairs(20), TINY, 1, 0, lambda done, total: None)


def test_quality_of_a_random_model(make_layers):
    """The encoding with all resolutions: kernel sizes and expand ratios of nine blocks, and four resolutions."""
    model = Mlp(TINY, [make_layers(16, seed=seed, inputs=9 * 6 + 4) for seed in range(2)], "random")
    found = quality(model, make_pairs(200), TINY)
    assert abs(found.tau) < 0.6
    assert found.rmse > 0.05
    assert found.tau_of_halves > 0.8
