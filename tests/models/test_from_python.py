"""Models from Python."""

import pytest
from model_files import conv_onnx

import ofa_profiler
from ofa_profiler.models.from_python import export
from ofa_tables.errors import FileError, UsageError


def test_a_module_needs_example_inputs_and_a_file_has_its_own(tmp_path):
    with pytest.raises(UsageError, match="a module needs example_inputs"):
        ofa_profiler.profile_model(object())
    with pytest.raises(UsageError, match="a file has its own inputs"):
        ofa_profiler.profile_model(conv_onnx(tmp_path / "m.onnx"), (1,))


def test_a_module_is_exported_and_stays_in_its_mode():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Dropout(), torch.nn.ReLU()).train()
    file = export(net, (torch.zeros(1, 3, 8, 8),), as_onnx=False)
    assert file.name == "Sequential.pt2"
    assert file.macs == 6 * 6 * 4 * 27
    assert net.training


def test_a_module_that_cannot_be_exported_costs_one_line():
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def forward(self, x):
            return x if x.sum().item() > 0 else -x

    with pytest.raises(FileError, match="PyTorch cannot export Net: ") as refused:
        export(Net(), (torch.zeros(3),), as_onnx=False)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.real
def test_a_module_is_profiled(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFA_AGENT_HOME", str(tmp_path / "agent"))
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    inputs = (torch.zeros(1, 3, 8, 8),)
    eager = ofa_profiler.profile_model(net, inputs, effort="quick")
    assert [layer.name for layer in eager.layers] == ["0 conv2d", "1 relu"]
    as_onnx = ofa_profiler.profile_model(net, inputs, effort="quick", runtime="onnxruntime")
    assert as_onnx.identity.runtime == "onnxruntime"
    assert as_onnx.macs == eager.macs == 6 * 6 * 4 * 27
    assert repr(as_onnx).startswith("ModelProfile('Sequential.onnx' on local, onnxruntime: ")
