"""Files of accuracy models are read as written, or refused with a one-line message."""

import contextlib
import io
import re
import sys
import zipfile

import numpy as np
import pytest

from ofa_nas.accuracy import Mlp, open_accuracy, read_members, write_members
from ofa_nas.accuracy.layers import forward
from ofa_nas.spaces import find_space
from ofa_tables.errors import FileError

SPACE = find_space("ofa-mbv3-w1.0")
RNG = np.random.default_rng(0)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.npz"


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is an extra: pip install ofa-profile[torch]")


def write_arrays(path, **arrays):
    with path.open("wb") as opened:
        np.savez(opened, **arrays)


def refusal(path):
    with pytest.raises(FileError) as refused:
        open_accuracy(str(path), SPACE)
    text = str(refused.value)
    assert str(path) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("hidden", [(), (7,), (400, 400, 400), (5, 4, 3, 2)])
def test_weights_are_read_as_written(file, make_layers, hidden):
    layers = make_layers(*hidden)
    write_members(file, [layers])
    for read, written in zip(read_members(file)[0], layers, strict=True):
        assert (read.weight == written.weight).all()
        assert (read.bias == written.bias).all()


def test_layers_are_ordered_by_number_not_by_name(file, make_layers):
    layers = make_layers(*[3] * 6)
    write_members(file, [layers])  # 0, 2 … 12
    assert [layer.weight.shape for layer in read_members(file)[0]] == [layer.weight.shape for layer in layers]


def test_an_mlp_applies_linear_layers_with_relu_between(make_layers):
    layers = make_layers(9, 8)
    mlp = Mlp(SPACE, [layers], "m")
    mlp.chunk = 7  # several pieces
    population = SPACE.sample(40, np.random.default_rng(0), [160, 208])
    values = mlp._encoder(population)
    for layer in layers[:-1]:
        values = np.maximum(values @ layer.weight.T + layer.bias, 0)
    expected = (values @ layers[-1].weight.T + layers[-1].bias)[:, 0]
    np.testing.assert_allclose(mlp(population), expected, rtol=1e-5, atol=1e-6)


def test_an_ensemble_predicts_the_mean_of_its_members(file, make_layers):
    members = [make_layers(9, 8, seed=seed) for seed in range(3)]
    write_members(file, members)
    population = SPACE.sample(20, np.random.default_rng(0), [160])
    alone = np.mean([Mlp(SPACE, [layers], "m")(population) for layers in members], axis=0)
    assert Mlp(SPACE, read_members(file), "m")(population) == pytest.approx(alone, rel=1e-5)


def test_writing_leaves_no_other_files(file, make_layers):
    write_members(file, [make_layers(4)])
    write_members(file, [make_layers(5)])
    assert [path.name for path in file.parent.iterdir()] == ["model.npz"]
    assert read_members(file)[0][0].weight.shape == (5, 128)


def test_a_file_that_cannot_be_written_is_reported(tmp_path, make_layers):
    with pytest.raises(FileError, match="cannot write"):
        write_members(tmp_path / "nowhere" / "m.npz", [make_layers(4)])


# Invalid files.


def test_a_missing_file(tmp_path):
    assert "or macs" in refusal(tmp_path / "none.npz")


def test_a_directory(tmp_path):
    assert "cannot read" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"PK", b"PK\x03\x04 nothing"])
def test_other_content(file, content):
    file.write_bytes(content)
    assert "not an accuracy model" in refusal(file)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(file, make_layers, share):
    write_members(file, [make_layers(16)])
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    assert "damaged" in refusal(file)


def test_a_flipped_byte(file, make_layers):
    write_members(file, [make_layers(16)])
    content = bytearray(file.read_bytes())
    content[2000] ^= 0xFF
    file.write_bytes(content)
    assert "damaged" in refusal(file)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_in_a_header_or_the_directory(file, make_layers, bit):
    write_members(file, [make_layers(1, inputs=128)])
    content = file.read_bytes()
    places = [*range(200), *range(len(content) - 400, len(content))]
    for at in places:
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit
        file.write_bytes(flipped)
        with contextlib.suppress(FileError):  # some bits are unused
            open_accuracy(str(file), SPACE)


@pytest.mark.parametrize(
    "header", ["{'descr': '<f4', (", "{'descr': '<f4'; }", "{'descr': '<f4', 'shape': ((1, 128), }"]
)
def test_a_header_that_is_not_a_python_literal(file, header):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("0.weight.npy", content)
    assert "not an accuracy model, or is damaged" in refusal(file)


def test_pickles_are_not_loaded(file):
    write_arrays(file, **{"0.weight": np.array([{"a": 1}], dtype=object), "0.bias": np.zeros(1)})
    assert "damaged" in refusal(file)


def test_a_header_that_claims_more_data_than_the_file_allocates_no_memory(file):
    header = io.BytesIO()
    claimed = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 128)}
    np.lib.format.write_array_header_1_0(header, claimed)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("0.weight.npy", header.getvalue())
    assert "claims" in refusal(file)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({}, "empty"),
        ({"scale": np.zeros(3)}, "'scale'"),
        ({"0.weight": np.zeros((1, 128))}, "only 0.weight"),
        ({"0.weight": np.zeros((1, 128)), "0.bias": np.zeros(2)}, "do not form a layer"),
        ({"0.weight": np.zeros(128), "0.bias": np.zeros(1)}, "do not form a layer"),
        ({"0.weight": np.zeros((1, 128), dtype=int), "0.bias": np.zeros(1)}, "int"),
        ({"0.weight": np.full((1, 128), np.nan), "0.bias": np.zeros(1)}, "not finite"),
        ({"0.weight": np.zeros((1, 128)), "0.bias": np.full(1, np.inf)}, "not finite"),
        ({"0.weight": np.full((1, 128), 1e300), "0.bias": np.zeros(1)}, "not finite"),
        ({"0.weight": np.zeros((1, 64)), "0.bias": np.zeros(1)}, "64 inputs"),
        ({"0.weight": np.zeros((2, 128)), "0.bias": np.zeros(2)}, "2 outputs"),
        (
            {
                "0.0.weight": np.zeros((1, 128)),
                "0.0.bias": np.zeros(1),
                "1.0.weight": np.zeros((1, 145)),
                "1.0.bias": np.zeros(1),
            },
            "128 and 145 inputs",
        ),
        (
            {
                "0.weight": np.zeros((1, 128)),
                "0.bias": np.zeros(1),
                "0.0.weight": np.zeros((1, 128)),
                "0.0.bias": np.zeros(1),
            },
            "both the layers of one model",
        ),
        (
            {
                "0.weight": np.zeros((9, 128)),
                "0.bias": np.zeros(9),
                "2.weight": np.zeros((1, 8)),
                "2.bias": np.zeros(1),
            },
            "takes 8 inputs",
        ),
    ],
)
def test_arrays_that_are_not_a_model(file, arrays, expected):
    write_arrays(file, **arrays)
    assert expected in refusal(file)


def test_a_prediction_that_overflows_is_reported(make_layers):
    layers = make_layers(8, 8)
    for layer in layers:
        layer.weight[:] = 1e38
    with pytest.raises(FileError, match="not finite"):
        Mlp(SPACE, [layers], "huge.npz")(SPACE.sample(3, np.random.default_rng(0), [160]))


def test_without_torch_the_message_names_the_import_command(tmp_path, monkeypatch):
    path = tmp_path / "predictor.pth"
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert f"ofa-accuracy import {path} --out predictor.npz" in refusal(path)


# With torch.


def as_cuda(content):
    """Convert a legacy stream to the bytes that a GPU writes: the same, except that storages are tagged CUDA."""
    tagged = content.replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n")
    tagged = tagged.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert tagged != content
    return tagged


@pytest.fixture
def published(torch, tmp_path):
    """A network with the published layers, and its file."""
    nn = torch.nn
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Linear(128, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU()),
        nn.Linear(400, 1),
    )
    path = tmp_path / "published.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(as_cuda(path.read_bytes()))
    return network, path


def test_the_published_file_predicts_the_same_as_torch(torch, published):
    network, path = published
    mlp = open_accuracy(str(path), SPACE)
    population = SPACE.sample(300, np.random.default_rng(0), [160, 176, 224])
    with torch.no_grad():
        expected = network(torch.from_numpy(mlp._encoder(population).copy()))[:, 0].numpy()
    np.testing.assert_allclose(mlp(population), expected, rtol=1e-5, atol=1e-6)


def test_an_imported_file_is_the_same_model(published, file):
    _, path = published
    write_members(file, read_members(path))
    inputs = np.random.default_rng(0).random((50, 128), dtype=np.float32)
    assert (forward(read_members(file)[0], inputs) == forward(read_members(path)[0], inputs)).all()


def test_newer_torch_files_are_read_too(torch, published, tmp_path):
    network, _ = published
    path = tmp_path / "newer.pth"
    torch.save(network.state_dict(), path)
    assert len(read_members(path)[0]) == 4


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.module."])
def test_a_torch_file_of_a_training_program(torch, published, tmp_path, prefix):
    network, _ = published
    state = {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}
    path = tmp_path / "trained.pth"
    torch.save({"model": {"state_dict": state}, "best_tau": np.float64(0.9)}, path)
    found, expected = (read_members(each)[0] for each in (path, published[1]))
    assert all((one.weight == other.weight).all() for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_a_truncated_torch_file(published, share):
    _, path = published
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert re.search("is not an accuracy model, or is damaged|no accuracy model", refusal(path))


def test_a_torch_file_that_runs_code_is_refused(torch, tmp_path):
    class Runs:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "evil.pth"
    torch.save({"0.weight": Runs()}, path, _use_new_zipfile_serialization=False)
    assert "holds print, which is neither a tensor nor a plain value; it is not opened" in refusal(path)
