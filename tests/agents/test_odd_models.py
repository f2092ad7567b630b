"""Models that a runtime can read, but that are not those of a block."""

import pytest

from ofa_agent.measuring.worker import take_trial

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402


def value(name, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, (1, 8, 6, 6))


def outside():
    """A weight in another file."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    place = weight.external_data.add()
    place.key, place.value = "location", "../../etc/passwd"
    return weight


CONSTANT = helper.make_tensor("v", TensorProto.FLOAT, [1, 8, 6, 6], [0.0] * 288)
INTEGER = TensorProto.INT64
MODELS = {
    "no input": ([], [value("y")], [helper.make_node("Constant", [], ["y"], value=CONSTANT)], []),
    "two inputs": ([value("a"), value("b")], [value("y")], [helper.make_node("Add", ["a", "b"], ["y"])], []),
    "integers": ([value("a", INTEGER)], [value("y", INTEGER)], [helper.make_node("Identity", ["a"], ["y"])], []),
    "weights in another file": ([value("a")], [value("y")], [helper.make_node("Add", ["a", "w"], ["y"])], [outside()]),
}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_not_of_a_block_is_malformed(trial_of, tmp_path, runtime, name):
    pytest.importorskip(runtime)
    inputs, outputs, nodes, weights = MODELS[name]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    measurement = take_trial(trial_of(runtime, model_id="a model"), str(path))
    assert measurement.status == "malformed", measurement.error
