"""A space of three stages with kernels 3 and 5: train it on digits, resume, evaluate, and export a network."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from ofa_nas.spaces import find_space
from ofa_nas.training.__main__ import command as train
from ofa_profiler.commands.accuracy import command as accuracy
from ofa_profiler.commands.export import command as export
from ofa_tables.errors import UsageError

pytest.importorskip("sklearn", reason="scikit-learn brings the digits")
EXAMPLE = Path(__file__).parents[3] / "examples" / "spaces" / "three-stages.toml"


@pytest.fixture
def call():
    """Run a command in this process; return the object that it prints."""

    def run(command, *words):
        done = CliRunner().invoke(command, [*map(str, words), "--json"], catch_exceptions=False, standalone_mode=False)
        if done.exception:
            raise done.exception
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_an_own_space_is_trained_evaluated_and_exported(call, tmp_path, one_thread):
    source = shutil.copy(EXAMPLE, tmp_path / "mine.toml")
    short = ("--data", "digits", "--epochs-scale", "0.001", "--evaluations", "0", "--train-images", "64")
    words = (*short, "--batch-size", "32", "--recipe", "progressive", "--threads", "1", "--out", tmp_path / "run")
    trained = call(train, "--space", source, *words)
    assert len(trained["test"]) > 1
    changed = tmp_path / "changed" / "mine.toml"
    changed.parent.mkdir()
    changed.write_text(EXAMPLE.read_text().replace("channels = 60", "channels = 64"))
    with pytest.raises(UsageError, match=r"was started with --space mine \(definition [0-9a-f]{8}\)"):
        call(train, "--space", changed, *words, "--resume")

    Path(source).rename(tmp_path / "moved.toml")  # later commands find the space in the files
    checkpoint = tmp_path / "run" / "supernet.pth"
    images = ("--data", "digits", "--statistics-images", "32", "--images", "32")
    exported = call(
        export,
        "--checkpoint",
        checkpoint,
        *images,
        "--architecture",
        "largest",
        "--format",
        "onnx",
        "--out",
        tmp_path / "n.onnx",
    )
    largest = find_space(str(EXAMPLE)).network(find_space(str(EXAMPLE)).decode(_largest())[0])
    assert (exported["space"], exported["macs"]) == ("mine", largest.macs)
    assert exported["largest_difference"] < 1e-4
    pairs = ("--networks", "3", "--out", tmp_path / "pairs.jsonl")
    assert call(accuracy, "collect", "--checkpoint", checkpoint, *images, *pairs)["space"] == "mine"
    assert call(accuracy, "collect", "--checkpoint", checkpoint, *images, *pairs)["pairs"] == 3
    with pytest.raises(UsageError, match="3 pairs are too few to fit"):
        call(accuracy, "fit", tmp_path / "pairs.jsonl", "--out", tmp_path / "model.npz")


def _largest():
    import numpy as np

    from ofa_nas.spaces import Population

    space = find_space(str(EXAMPLE))
    return Population((space.radices - 1).astype(np.uint8)[:, None])
