"""Run everything on this machine with the space tiny: train, collect, fit, profile, search, export, measure.

    python scripts/whole_line.py OUT [--data fashion-mnist] [--train-images 10000] [--epochs-scale 0.03]

Takes `pip install 'ofa-profile[train]'`. At the end stand what the accuracy model said of the found network and what it
has on images that nothing was fitted to, and its predicted latency with its interval and what was measured.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

SPACE, LIMIT_OF_RANGE = "tiny", 0.4
COMMANDS = Path(sys.executable).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--train-images", default="10000")
    parser.add_argument("--epochs-scale", default="0.03")
    parser.add_argument("--networks", default="300")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run, pairs, accuracy, table, found, net = (
        str(options.out / name) for name in ("run", "pairs.jsonl", "accuracy.npz", "tiny.lut", "found.json", "net.onnx")
    )
    data, threads = ("--data", options.data), ("--threads", "1")
    supernet = f"{run}/supernet.pth"

    if not Path(supernet).exists():
        resume = ("--resume",) if Path(run, "state.pth").exists() else ()
        few = ("--train-images", options.train_images, "--epochs-scale", options.epochs_scale, "--batch-size", "64")
        command("ofa-train", "--space", SPACE, *data, *few, *threads, "--out", run, *resume)
    command(
        *("ofa-accuracy", "collect", "--checkpoint", supernet, *data, "--networks", options.networks, *threads),
        *("--images", "2000", "--statistics-images", "500", "--out", pairs),
    )
    fitted = command("ofa-accuracy", "fit", pairs, "--out", accuracy)
    command(
        *("ofa-profile", "--target", "local", "--space", SPACE, "--resolutions", "all"),
        *("--runtime", "onnxruntime", "--out", table),
    )
    command(
        *("ofa-compare", "--table", table, "--space", SPACE, "--networks", "10", "--calibrate", "15"),
        *("--out", str(options.out / "calibrated")),
    )
    (spaces,) = [s for s in command("ofa-table", "show", table)["spaces"] if s["space"] == SPACE][:1]
    limit_ms = round(spaces["smallest_ms"] + LIMIT_OF_RANGE * (spaces["largest_ms"] - spaces["smallest_ms"]), 4)
    searched = command(
        *("ofa-search", "--table", table, "--space", SPACE, "--max-latency-ms", str(limit_ms)),
        *("--accuracy", accuracy, "--out", found),
    )
    predicted = command("ofa-table", "predict", table, "--space", SPACE, "--architecture", found)
    exported = command(
        *("ofa-export", "--checkpoint", supernet, "--architecture", found, "--format", "onnx", *data),
        *("--images", "100000", "--out", net),
    )
    compared = command(
        *("ofa-compare", "--table", table, "--space", SPACE, "--networks", found, "--calibrate", "0"),
        *("--out", str(options.out / "measured")),
    )
    report(limit_ms, fitted, searched, predicted, exported, compared)


def report(limit_ms: float, fitted: dict, searched: dict, predicted: dict, exported: dict, compared: dict) -> None:
    latency_ms, low_ms, high_ms = (predicted[name] for name in ("latency_ms", "low_ms", "high_ms"))
    measured_ms = latency_ms / (1 + compared["calibrated"]["bias"])
    where = "inside" if low_ms <= measured_ms <= high_ms else "outside"
    print(f"\nlimit      {limit_ms} ms")
    print(f"accuracy   {searched['predicted_accuracy']:.2%} by the model, RMSE {100 * fitted['rmse']:.2f} points")
    print(f"           {exported['accuracy']:.2%} of the exported file on held-out images")
    print(f"           {exported['supernet_accuracy']:.2%} of the supernet on the same")
    print(f"latency    {latency_ms:.4f} ms predicted, {low_ms:.4f} to {high_ms:.4f}")
    print(f"           {measured_ms:.4f} ms measured, {where}; two passes differ by {compared['noise']['mape']:.1%}")


def command(*words: str) -> dict:
    """Run a command with visible progress; return its JSON."""
    print(f"$ {' '.join(words)}", flush=True)
    done = subprocess.run([COMMANDS / words[0], *words[1:], "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
