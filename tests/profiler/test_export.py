"""Export of one network of a supernet to a file."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="supernets need torch")

from ofa_nas.spaces import find_space, parse_architecture  # noqa: E402
from ofa_nas.supernet import OneNetwork, build_supernet, estimated, load_supernet, save_supernet  # noqa: E402
from ofa_nas.training.evaluation import statistics_batches  # noqa: E402
from ofa_nas.training.processes import Processes  # noqa: E402
from ofa_profiler.commands.export import command  # noqa: E402
from ofa_tables.errors import FileError, OfaError, UnknownName, UsageError  # noqa: E402

ARCHITECTURES = {
    "tiny": {"ks": [3, 5, 7] * 3, "e": [2, 3, 4] * 3, "d": [1, 3, 2], "r": 28},
    "ofa-mbv3-w1.0": {"ks": [3, 5, 7, 3] * 5, "e": [3, 4, 6, 3] * 5, "d": [2, 3, 4, 2, 3], "r": 128},
    "ofa-proxyless-w1.3": {"ks": [3, 5, 7] * 7, "e": [3, 4, 6] * 7, "d": [2, 3, 4, 2, 3, 1], "r": 128},
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def checkpoint(tmp_path):
    """Write a checkpoint with random weights, running statistics, and matrices."""

    def make(space="tiny", classes=None):
        torch.manual_seed(0)
        supernet = build_supernet(find_space(space), classes)
        with torch.no_grad():
            for name, tensor in supernet.state_dict().items():
                if name.endswith(("running_mean", "bn.bias", "matrix")):
                    tensor += 0.1 * torch.randn_like(tensor)
                elif name.endswith(("running_var", "bn.weight")):
                    tensor.uniform_(0.5, 1.5)
        save_supernet(tmp_path / f"{space}.pth", supernet)
        return tmp_path / f"{space}.pth"

    return make


@pytest.fixture
def export(tmp_path):
    def run(path, format="onnx", *more, space="tiny", architecture=None, out=None):
        if format == "tflite":
            pytest.importorskip("ai_edge_litert", reason="TFLite is not installed")
        chosen = architecture if isinstance(architecture, str) else json.dumps(architecture or ARCHITECTURES[space])
        arguments = ["--checkpoint", path, "--architecture", chosen, "--format", format, *more]
        out = out or tmp_path / f"net.{format}"
        arguments += ["--out", out, "--json"]
        result = CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False, standalone_mode=False)
        return json.loads(result.stdout.splitlines()[-1]), out

    return run


@pytest.fixture
def digits():
    pytest.importorskip("sklearn", reason="the digits data set needs scikit-learn")
    from ofa_nas.training.data import open_data

    return open_data("digits")


@pytest.mark.parametrize("format", ["onnx", "tflite", "torch"])
@pytest.mark.parametrize("space", ARCHITECTURES)
def test_an_exported_file_computes_the_same_as_the_supernet(checkpoint, export, space, format):
    reported, path = export(checkpoint(space), format, space=space)
    assert reported["largest_difference"] < 1e-4
    assert reported["same_top1"] == 1
    assert reported["accuracy"] is None
    assert reported["bytes"] == path.stat().st_size > 4 * reported["parameters"]
    network = find_space(space).network_blocks(parse_architecture(ARCHITECTURES[space]))
    assert reported["macs"] == sum(block.macs for block in network)


def test_export_hides_tracer_warnings(checkpoint, export, recwarn):
    export(checkpoint(), "torch")
    assert not [str(warning.message) for warning in recwarn if issubclass(warning.category, torch.jit.TracerWarning)]


def test_a_network_is_chosen_by_its_name_in_a_file(checkpoint, export, tmp_path):
    other = {**ARCHITECTURES["tiny"], "r": 32}
    named = [{"name": name, "architecture": one} for name, one in (("5ms", ARCHITECTURES["tiny"]), ("9ms", other))]
    (tmp_path / "front.json").write_text(json.dumps({"front": named}))
    reported, _ = export(checkpoint(), "torch", architecture=f"{tmp_path}/front.json:9ms")
    assert reported["architecture"]["r"] == 32
    with pytest.raises(UsageError, match="names: 5ms, 9ms"):
        export(checkpoint(), "torch", architecture=f"{tmp_path}/front.json")


def reported_by(path):
    """Return the metadata of an exported file."""
    if path.suffix == ".onnx":
        return {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    if path.suffix == ".torch":
        reported = dict.fromkeys(["input", "mean", "std", "classes", "space", "architecture"], "")
        torch.jit.load(path, _extra_files=reported)
        return {name: text.decode() for name, text in reported.items() if text}
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    return {each.name.decode(): bytes(model.buffers[each.buffer].data).decode() for each in model.metadata}


@pytest.mark.parametrize("format", ["onnx", "tflite", "torch"])
def test_metadata_describes_the_input_images(checkpoint, export, digits, format):
    printed, path = export(checkpoint(), format, "--data", "digits", "--images", "10", "--statistics-images", "50")
    shape, layout = ((1, 28, 28, 3), "NHWC") if format == "tflite" else ((1, 3, 28, 28), "NCHW")
    mean, std = map(list, digits.train.normalisation)
    assert printed["input"] == {
        "layout": layout,
        "shape": list(shape),
        "values": "0 to 255: scikit-learn's 0 to 16 times 255 / 16, rounded down",
        "mean": mean,
        "std": std,
        "classes": list("0123456789"),
    }
    reported = reported_by(path)
    words = reported.pop("input")
    assert words.startswith(f"float32 RGB, {layout} {shape}, (value / 255 - mean) / std with mean 0.")
    assert words.endswith(", value 0 to 255: scikit-learn's 0 to 16 times 255 / 16, rounded down")
    assert reported.pop("space") == "tiny"
    values = {"mean": mean, "std": std, "classes": list("0123456789"), "architecture": ARCHITECTURES["tiny"]}
    assert {name: json.loads(text) for name, text in reported.items()} == values


def test_normalisation_of_the_checkpoint_is_exported(checkpoint, export):
    path = checkpoint()
    assert (export(path)[0]["input"]["mean"], "mean" in reported_by(export(path)[1])) == (None, False)
    normalisation = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.25, 0.25)}
    save_supernet(path, load_supernet(path), normalisation=normalisation)
    reported = reported_by(export(path)[1])
    assert reported["input"].endswith("with mean 0.5, 0.4, 0.3 and std 0.25, 0.25, 0.25, value 0 to 255")
    assert (reported["mean"], reported["std"]) == ("[0.5, 0.4, 0.3]", "[0.25, 0.25, 0.25]")


@pytest.mark.parametrize(
    "normalisation", [5, {"mean": 1.0}, {"mean": (1, 2, 3), "std": (1, "x", 2)}, {"mean": (), "std": ()}]
)
def test_an_invalid_normalisation_in_a_checkpoint_is_ignored(checkpoint, normalisation):
    path = checkpoint()
    save_supernet(path, load_supernet(path), normalisation=normalisation)
    assert load_supernet(path).normalisation is None


def test_the_input_is_printed(checkpoint, tmp_path):
    arguments = ["--checkpoint", checkpoint(), "--architecture", json.dumps(ARCHITECTURES["tiny"]), "--format", "onnx"]
    arguments += ["--out", tmp_path / "net.onnx"]
    result = CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False, standalone_mode=False)
    normalised = "normalised as in training; mean and std are unknown without --data"
    assert f"input: float32 RGB, NCHW (1, 3, 28, 28), {normalised}" in result.stdout


def test_the_printed_compare_command_names_the_given_file(checkpoint, tmp_path):
    network = ARCHITECTURES["tiny"]
    file = tmp_path / "found.json"
    file.write_text(json.dumps({"front": [{"name": "5ms", "architecture": network}]}))
    for given, said in (
        (json.dumps(network), f"FILE, where FILE contains {json.dumps(network)}"),
        (f"{file}:5ms", f"{file}:5ms"),
    ):
        arguments = ["--checkpoint", checkpoint(), "--architecture", given, "--format", "torch"]
        arguments += ["--out", tmp_path / "net.pt"]
        result = CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False, standalone_mode=False)
        assert result.stdout.endswith(f"--networks {said}\n")


def test_fp16_files_are_smaller_and_close(checkpoint, export):
    reported, path = export(checkpoint(), "tflite", "--precision", "fp16")
    assert 1e-6 < reported["largest_difference"] < 2e-2
    assert path.stat().st_size < 0.7 * 4 * reported["parameters"]


def test_a_file_has_the_given_batch_and_classes(checkpoint, export):
    onnxruntime = pytest.importorskip("onnxruntime")
    _, path = export(checkpoint(classes=3), "onnx", "--batch", "4")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"x": np.zeros((4, 3, 28, 28), np.float32)})
    assert logits.shape == (4, 3)


def test_data_gives_the_network_its_own_batch_norm_statistics(checkpoint, export, digits, tmp_path):
    path = checkpoint()
    reported, file = export(path, "torch", "--data", "digits", "--statistics-images", "200", "--images", "100")
    assert reported["accuracy"] == reported["supernet_accuracy"]
    without, plain = export(path, "torch", out=tmp_path / "plain.torch")
    assert without["accuracy"] is None
    supernet, architecture = load_supernet(path).eval(), parse_architecture(ARCHITECTURES["tiny"])
    statistics = statistics_batches(digits.train, 200, 28, 0, Processes(0, 1, torch.device("cpu")))
    image = statistics[0][:1]
    with torch.no_grad():
        running = supernet(image, architecture)
        with estimated(supernet, lambda x: supernet(x, architecture), statistics):
            expected = supernet(image, architecture)
        torch.testing.assert_close(torch.jit.load(file)(image), expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(torch.jit.load(plain)(image), running, rtol=1e-3, atol=1e-3)
    assert (expected - running).abs().max() > 0.05 * running.abs().max()


def test_a_file_with_nan_outputs_is_not_written(checkpoint, export, tmp_path, monkeypatch):
    from ofa_profiler import export as module

    monkeypatch.setattr(module, "_runner", lambda content, format: lambda images: np.full((len(images), 10), np.nan))
    with pytest.raises(OfaError, match="the onnx file differs from the supernet by nan of the largest logit"):
        export(checkpoint())
    assert not (tmp_path / "net.onnx").exists()


def test_fewer_images_than_a_batch_are_refused(checkpoint, export, digits):
    with pytest.raises(
        UsageError, match=rf"digits has {len(digits.held_out)} held-out images, fewer than a batch of 5"
    ):
        export(checkpoint(), "onnx", "--data", "digits", "--batch", "500")


def test_data_with_other_classes_is_refused(checkpoint, export, digits):
    with pytest.raises(UsageError, match="the checkpoint has 3 classes and --data digits has 10"):
        export(checkpoint(classes=3), "onnx", "--data", "digits")
    path = checkpoint()
    save_supernet(path, load_supernet(path), classes=[f"letter {number}" for number in range(10)])
    with pytest.raises(UsageError, match="--data digits has a class '0' where the checkpoint's is 'letter 0'"):
        export(path, "onnx", "--data", "digits")


def test_a_checkpoint_of_one_network_exports_only_that_network(export, tmp_path):
    torch.manual_seed(0)
    architecture = parse_architecture(ARCHITECTURES["tiny"])
    path = tmp_path / "network.pth"
    save_supernet(path, OneNetwork(find_space("tiny"), architecture))
    reported, _ = export(path)
    assert reported["largest_difference"] < 1e-4
    with pytest.raises(UsageError, match="contains only one network, and it is a different one: "):
        export(path, architecture={**ARCHITECTURES["tiny"], "r": 24})


def test_a_file_with_wrong_outputs_is_not_written(checkpoint, export, tmp_path, monkeypatch):
    from ofa_profiler import export as module

    monkeypatch.setattr(module, "_weights", lambda network: lambda seed, length, scale: np.full(length, 0.1, "<f4"))
    with pytest.raises(
        OfaError, match=r"the onnx file differs from the supernet by .* of the largest logit, more than"
    ):
        export(checkpoint())
    assert not (tmp_path / "net.onnx").exists()


def test_an_unknown_format_is_refused(checkpoint, export):
    with pytest.raises(UnknownName, match="no format named 'onxx'; did you mean onnx"):
        export(checkpoint(), "onxx")


def test_int8_files_are_smaller_and_calibrated_with_data(without_saturation, checkpoint, export, digits):
    more = ("--data", "digits", "--statistics-images", "200", "--images", "100")
    reported, path = export(checkpoint(), "onnx", "--precision", "int8", *more)
    assert 1e-6 < reported["largest_difference"] < 0.2
    assert reported["same_top1"] > 0.8
    assert path.stat().st_size < 0.5 * 4 * reported["parameters"]
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("QuantizeLinear") > kinds.count("Conv")
    assert reported_by(path)["space"] == "tiny"


def test_int8_without_data_is_refused(checkpoint, export):
    with pytest.raises(UsageError, match="int8 needs images that determine the ranges of the activations; add --data"):
        export(checkpoint(), "onnx", "--precision", "int8")


@pytest.mark.parametrize(("format", "precision"), [("tflite", "int8"), ("onnx", "fp16"), ("torch", "int8")])
def test_a_precision_that_the_format_lacks_is_refused(checkpoint, export, format, precision):
    said = f"{format} cannot be exported in {precision}; use fp32, or fp16 with tflite, or int8 with onnx"
    with pytest.raises(UsageError, match=said):
        export(checkpoint(), format, "--precision", precision)


def test_an_architecture_of_another_space_is_refused(checkpoint, export):
    with pytest.raises(UsageError, match="an architecture of tiny needs 3 entries in 'd', this one has 5"):
        export(checkpoint(), architecture=ARCHITECTURES["ofa-mbv3-w1.0"])


def test_a_missing_checkpoint_is_refused(export, tmp_path):
    with pytest.raises(FileError, match=r"cannot read .*none\.pth: No such file or directory"):
        export(tmp_path / "none.pth")


def test_a_missing_output_directory_is_refused(checkpoint, export, tmp_path):
    with pytest.raises(FileError, match="none is not a directory"):
        export(checkpoint(), out=tmp_path / "none" / "a.onnx")
