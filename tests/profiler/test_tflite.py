"""What a TFLite file holds: the numbers of the PyTorch layer, and the operators that a converter makes of it."""

import os
import pickle
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ofa_agent import operators as ops
from ofa_agent import runtimes
from ofa_agent.operators import Activation, Add, AvgPool, Block, Conv, Linear, MaxPool, Pool, SqueezeExcite, Take
from ofa_agent.protocol import messages as wire
from ofa_agent.protocol.messages import SeededValues
from ofa_nas.spaces import find_space, parse_architecture
from ofa_profiler.lowering import lower
from ofa_tables.errors import UsageError

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SPACE = find_space("ofa-mbv3-w1.0")
PRECISIONS = ("fp32", "fp16", "int8")
# How far a value may be off, in parts of the output's range.
BOUNDS = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.05}

HARD_SIGMOID = Activation("hard_sigmoid")
HARD_SWISH = Activation("hard_swish")
RELU = Activation("relu")
RELU6 = Activation("relu6")
SIGMOID = Activation("sigmoid")
SWISH = Activation("swish")
BOTTLENECK = (Conv(8, 4, 1), RELU, Conv(4, 4, 3, 2), RELU, Conv(4, 16, 1))
OF_OTHER_SPACES = [
    Block("relu6", (16, 14, 14), (Conv(16, 96, 1), RELU6, Conv(96, 96, 5, 1, 96), RELU6, Conv(96, 16, 1), Add(0))),
    Block("groups and odd sizes", (8, 7, 9), (Conv(8, 12, 5, stride=2, groups=4), HARD_SIGMOID)),
    Block("one size odd", (8, 7, 8), (Conv(8, 8, 3, 2, 8), RELU, Conv(8, 8, 5, 2, 8))),
    Block("a stride and no kernel", (8, 8, 8), (Conv(8, 12, 1, stride=2), RELU)),
    Block("two of each channel", (4, 6, 6), (Conv(4, 8, 3, groups=4), HARD_SWISH)),
    Block("a value from the middle", (4, 5, 5), (Conv(4, 8, 3), RELU, Conv(8, 8, 3), Add(2), RELU6)),
    Block("a value before its activation", (4, 5, 5), (Conv(4, 8, 3), RELU, Conv(8, 8, 3), Add(1))),
    Block("linear layers", (6, 2, 2), (Linear(24, 12), RELU, Linear(12, 5, bias=False), HARD_SWISH)),
    Block("channels weighed", (8, 6, 6), (SqueezeExcite(8, 4), RELU6, SqueezeExcite(8, 2), Pool())),
    Block("activations alone", (8, 6, 6), (RELU, HARD_SIGMOID, RELU6, HARD_SWISH)),
    Block("swish", (8, 6, 6), (Conv(8, 8, 3), SWISH, SqueezeExcite(8, 2, "swish", "sigmoid"), SIGMOID)),
    Block("a sigmoid for a gate", (8, 6, 6), (Conv(8, 8, 5, 1, 8), RELU, SqueezeExcite(8, 2, "relu", "sigmoid"))),
    Block("a maximum", (4, 8, 8), (Conv(4, 4, 3), RELU, MaxPool(3, 2))),
    Block("a maximum of odd sizes", (4, 7, 9), (Conv(4, 4, 3), MaxPool(3, 2))),
    Block("an average", (4, 8, 8), (Conv(4, 4, 3), RELU, AvgPool(2))),
    Block("an average of odd sizes", (4, 7, 9), (Conv(4, 4, 3), AvgPool(2))),
    Block("a shortcut of its own", (8, 8, 8), (*BOTTLENECK, Take(0), Conv(8, 16, 1, 2), Add(5), RELU)),
    Block(
        "a branch before its activation",
        (4, 5, 5),
        (Conv(4, 8, 3), RELU, Conv(8, 8, 3), Take(1), Conv(8, 8, 1), Add(3)),
    ),
]


def kind_of(block):
    """Blocks of one kind differ in nothing but sizes; of odd and even sizes are two, where a stride halves them."""
    parts = []
    for operator in block.operators:
        if isinstance(operator, Conv):
            odd = " of odd sizes" if operator.stride > 1 and block.input_shape[1] % 2 else ""
            depthwise = " depthwise" if operator.groups > 1 else ""
            bias = "" if operator.bias else " without bias"
            parts.append(f"{operator.kernel_size}×{operator.kernel_size}/{operator.stride}{depthwise}{bias}{odd}")
        else:
            parts.append(operator.function if isinstance(operator, Activation) else type(operator).__name__)
    return ", ".join(parts)


# At 172 px there are feature maps of 86, 43, 22, 11 and 6.
KINDS = {kind_of(block): block for px in (172, 128) for block in SPACE.blocks(px)[::-1]}
KINDS |= {block.key: block for block in OF_OTHER_SPACES}

every_kind = pytest.mark.parametrize("block", KINDS.values(), ids=KINDS)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


def file_of(block, precision="fp32", batch=1):
    return wire.model_bytes(lower("tflite", block, batch, precision).chunks)


def parsed(content):
    return schema.ModelT.InitFromPackedBuf(content, 0)


def name_of(number, names=schema.BuiltinOperator):
    return next(name for name, value in vars(names).items() if value == number)


def nodes_of(model):
    """The operators' names, in the order in which they run."""
    codes = [name_of(code.builtinCode) for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def output_by(runtime, block, tmp_path, precision="fp32", batch=1):
    """What a runtime of the agent makes of the Block, for the input that all of them take."""
    model = lower(runtime, block, batch, precision)
    path = tmp_path / f"{runtime}-{precision}"
    path.write_bytes(wire.model_bytes(model.chunks))
    settings = wire.Settings(runtime=runtime, precision=precision, threads=1, batch=batch)
    loaded = runtimes.find(runtime).load(block, wire.job_message(block, settings, model.model_id), str(path))
    loaded.run()
    return np.array(loaded.output())


def assert_same_numbers(got, expected, precision="fp32"):
    assert got.shape == expected.shape
    assert np.ptp(expected) > 1e-3, "an output of one value shows nothing"
    assert np.abs(got - expected).max() <= BOUNDS[precision] * np.ptp(expected)


@every_precision
@every_kind
def test_a_lowered_block_gives_the_numbers_of_the_onnx_one(block, precision, tmp_path):
    expected = output_by("onnxruntime", block, tmp_path)
    assert_same_numbers(output_by("tflite", block, tmp_path, precision), expected, precision)


@every_precision
@every_kind
def test_a_lowered_block_gives_the_numbers_of_its_pytorch_layers(block, precision, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from ofa_agent.runtimes.torch_layers import TorchBlock

    values = ops.seeded(1, ops.product(block.input_shape), 1.0).reshape(1, *block.input_shape)
    with torch.no_grad():
        expected = TorchBlock(block, block.seed).eval()(torch.from_numpy(values.copy())).numpy()
    assert_same_numbers(output_by("tflite", block, tmp_path, precision), expected, precision)


@every_precision
def test_a_batch_gives_the_numbers_of_its_onnx_one(precision, tmp_path):
    for block in OF_OTHER_SPACES:
        expected = output_by("onnxruntime", block, tmp_path, batch=2)
        assert_same_numbers(output_by("tflite", block, tmp_path, precision, batch=2), expected, precision)


SMALL = parse_architecture({"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, "r": 128})
MIXED = parse_architecture({"ks": [3, 5, 7, 3] * 5, "e": [6, 4, 3, 3] * 5, "d": [4, 3, 2, 3, 4], "r": 148})


@pytest.mark.parametrize("architecture", [SMALL, MIXED], ids=["small", "mixed"])
def test_a_network_gives_the_numbers_of_its_onnx_one(architecture, tmp_path):
    network = SPACE.network(architecture)
    assert_same_numbers(output_by("tflite", network, tmp_path), output_by("onnxruntime", network, tmp_path))


@pytest.mark.parametrize(("precision", "correlation"), [("fp16", 0.999), ("int8", 0.95)])
def test_a_network_gives_nearly_the_same_in_lower_precisions(precision, correlation, tmp_path):
    network = SPACE.network(SMALL)
    expected, got = output_by("onnxruntime", network, tmp_path), output_by("tflite", network, tmp_path, precision)
    assert got.shape == expected.shape
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > correlation


# What the graph is.


def expected_nodes(block):
    """What a deployed model does for each Operator, where activations are part of the kernel before them."""
    nodes = Counter()
    for index, operator in enumerate(block.operators):
        if isinstance(operator, Conv):
            nodes["DEPTHWISE_CONV_2D" if operator.groups == operator.in_channels > 1 else "CONV_2D"] += 1
            nodes["PAD"] += (
                operator.kernel_size > 1
                and operator.stride > 1
                and any(size % 2 == 0 for size in block.shapes[index][1:])
            )
        elif isinstance(operator, SqueezeExcite):
            nodes += Counter({"MEAN": 1, "CONV_2D": 2, "MUL": 2})
        elif operator == HARD_SWISH:
            nodes["HARD_SWISH"] += 1
        elif isinstance(operator, Pool | Linear | Add):
            nodes[{Pool: "MEAN", Linear: "FULLY_CONNECTED", Add: "ADD"}[type(operator)]] += 1
    return +nodes


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("block", [block for key, block in KINDS.items() if block not in OF_OTHER_SPACES])
def test_a_block_is_the_kernels_of_a_deployed_model(block, precision):
    """One HARD_SWISH each, no relu of its own, a PAD where TFLite's SAME is off the centre, never a TRANSPOSE."""
    model = parsed(file_of(block, precision))
    assert Counter(nodes_of(model)) == expected_nodes(block)


@every_precision
def test_the_operators_that_the_space_lacks_are_those_of_a_deployed_model(precision):
    nodes = {block.key: Counter(nodes_of(parsed(file_of(block, precision)))) for block in OF_OTHER_SPACES}
    for found in nodes.values():
        del found["DEQUANTIZE"]
    assert nodes == {
        "relu6": {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 1, "ADD": 1},
        "groups and odd sizes": {"CONV_2D": 1, "MUL": 1},
        "one size odd": {"PAD": 2, "DEPTHWISE_CONV_2D": 2},
        "a stride and no kernel": {"CONV_2D": 1},
        "two of each channel": {"DEPTHWISE_CONV_2D": 1, "HARD_SWISH": 1},
        "a value from the middle": {"CONV_2D": 2, "ADD": 1},
        "a value before its activation": {"CONV_2D": 2, "RELU": 1, "ADD": 1},
        "linear layers": {"FULLY_CONNECTED": 2, "HARD_SWISH": 1},
        "channels weighed": {"MEAN": 3, "CONV_2D": 4, "MUL": 4},
        "activations alone": {"RELU": 1, "ADD": 1, "MUL": 1, "RELU6": 1, "HARD_SWISH": 1},
        "swish": {"CONV_2D": 3, "MEAN": 1, "LOGISTIC": 4, "MUL": 3},
        "a sigmoid for a gate": {"DEPTHWISE_CONV_2D": 1, "MEAN": 1, "CONV_2D": 2, "LOGISTIC": 1, "MUL": 1},
        "a maximum": {"CONV_2D": 1, "PAD": 1, "MAX_POOL_2D": 1},
        "a maximum of odd sizes": {"CONV_2D": 1, "MAX_POOL_2D": 1},
        "an average": {"CONV_2D": 1, "AVERAGE_POOL_2D": 1},
        "an average of odd sizes": {"CONV_2D": 1, "AVERAGE_POOL_2D": 1},
        "a shortcut of its own": {"CONV_2D": 4, "PAD": 1, "ADD": 1},
        "a branch before its activation": {"CONV_2D": 3, "RELU": 1, "ADD": 1},
    }


@pytest.fixture(scope="module")
def converted_kinds(converter, tmp_path_factory):
    """The converter's file of each kind of Block."""
    out = tmp_path_factory.mktemp("converted")
    (out / "blocks").write_bytes(pickle.dumps(list(KINDS.values())))
    environment = os.environ | {"PYTHONPATH": str(Path(ops.__file__).parents[1])}
    command = [converter, str(Path(__file__).with_name("converting.py")), str(out / "blocks"), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return {block.key: (out / f"{number}.tflite").read_bytes() for number, block in enumerate(KINDS.values())}


@pytest.mark.slow  # installs the converter, which takes minutes; the tests above check the same layers against PyTorch
@every_kind
def test_a_converter_makes_the_same_of_the_pytorch_layers(block, converted_kinds, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    converted = converted_kinds[block.key]
    values = ops.seeded(1, ops.product(block.input_shape), 1.0).reshape(1, *block.input_shape).transpose(0, 2, 3, 1)
    values = np.ascontiguousarray(values)
    interpreter = Interpreter(model_content=converted)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    expected = np.moveaxis(expected, -1, 1) if expected.ndim == 4 else expected
    assert_same_numbers(output_by("tflite", block, tmp_path), expected)

    # Alone, a pool, a flattening and an activation keep channels first inside the converter's model.
    nodes = Counter(nodes_of(parsed(converted)))
    # It pads maxima with −∞; behind a relu zeros do, as they have it whose layers pad apart.
    nodes += Counter(PAD=nodes.pop("PADV2", 0))
    if nodes["AVERAGE_POOL_2D"]:  # where the last windows are not full it pads with zeros and makes up for them
        nodes -= Counter(PAD=nodes["PAD"], MUL=nodes["PAD"])
    if not nodes["TRANSPOSE"] and not nodes["RESHAPE"]:
        assert Counter(nodes_of(parsed(file_of(block)))) == nodes
    else:
        assert isinstance(block.operators[-1], Pool | Linear | Activation)


@every_precision
def test_tensors_are_named_by_their_operator(precision):
    network = SPACE.network(SMALL)
    graph = parsed(file_of(network, precision)).subgraphs[0]
    owners = []
    for operator in graph.operators:
        (output,) = operator.outputs
        owners.append(int(re.match(rb"operator(\d+)", graph.tensors[output].name).group(1)))
    computed = [
        owner
        for owner, name in zip(owners, nodes_of(parsed(file_of(network, precision))), strict=True)
        if name != "DEQUANTIZE"
    ]
    assert computed == sorted(computed), "they run in the order of the Operators"
    relus = {index for index, operator in enumerate(network.operators) if operator == RELU}
    assert set(computed) == set(range(len(network.operators))) - relus


# How it travels.


@every_precision
def test_weights_travel_as_seeds(precision):
    """All but the first convolution's, which lie in another order, and what is reckoned for each channel."""
    for block in SPACE.blocks(224):
        model = lower("tflite", block, 1, precision)
        matrices = [
            parameter.size
            for operator in block.operators
            for parameter in operator.parameters()
            if parameter.part.endswith("weight") and parameter.shape != (16, 3, 3, 3)
        ]
        seeded = [chunk for chunk in model.chunks if isinstance(chunk, SeededValues)]
        assert sorted(chunk.length for chunk in seeded if chunk.length in matrices) == sorted(matrices)
        literal = sum(len(chunk) for chunk in model.chunks if isinstance(chunk, bytes))
        assert literal < (100_000 if precision == "int8" else 8_000)


@every_precision
def test_an_agent_makes_the_same_file_from_seeds(precision):
    model = lower("tflite", SPACE.blocks(128)[40], 1, precision)
    sent = [
        wire.Model.FromString(m.SerializeToString()) for m in wire.model_messages(model.model_id, model.chunks, 1000)
    ]
    arrived = wire.merged(chunk for message in sent for chunk in wire.model_chunks(message))
    assert wire.model_id_of(arrived) == model.model_id
    assert wire.model_bytes(arrived) == wire.model_bytes(model.chunks)
    assert len(wire.model_bytes(arrived)) == wire.chunks_size(arrived)


@every_precision
def test_constants_lie_aligned(precision):
    content = np.frombuffer(file_of(SPACE.blocks(128)[40], precision), np.uint8)
    assert bytes(content[4:8]) == b"TFL3"
    model = schema.Model.GetRootAs(content, 0)
    starts = []
    for index in range(model.BuffersLength()):
        data = model.Buffers(index).DataAsNumpy()
        if not isinstance(data, int):
            starts.append(data.__array_interface__["data"][0] - content.__array_interface__["data"][0])
    assert len(starts) > 4
    assert {start % 16 for start in starts} == {0}


@every_precision
def test_equal_blocks_are_equal_models_and_others_are_not(precision):
    blocks = SPACE.blocks(128)[::12]
    models = [lower("tflite", block, batch, precision) for block in blocks for batch in (1, 2)]
    assert len({model.model_id for model in models}) == len(models)
    assert lower("tflite", blocks[1], 2, precision) == models[3]


# What the precisions are.


def test_half_precision_is_in_the_weights_and_offered_to_the_kernels():
    model = parsed(file_of(SPACE.blocks(128)[40], "fp16"))
    metadata = {entry.name: bytes(model.buffers[entry.buffer].data) for entry in model.metadata}
    assert metadata == {b"reduced_precision_support": b"fp16accfp16"}
    graph = model.subgraphs[0]
    constants = [tensor for tensor in graph.tensors if tensor.buffer and len(tensor.shape)]
    assert {name_of(tensor.type, schema.TensorType) for tensor in constants} <= {"FLOAT16", "INT32"}
    assert name_of(graph.tensors[graph.inputs[0]].type, schema.TensorType) == "FLOAT32"


def test_int8_keeps_to_the_specification():
    block = next(
        block for block in SPACE.blocks(128) if "PAD" in expected_nodes(block) and "MEAN" in expected_nodes(block)
    )
    model = parsed(file_of(block, "int8"))
    assert re.search(rb"int8, calibrated with \d+ random inputs, seed 1", model.description)
    graph = model.subgraphs[0]
    kinds = [name_of(tensor.type, schema.TensorType) for tensor in graph.tensors]
    assert set(kinds) == {"INT8", "INT32"}
    for node, operator in zip(nodes_of(model), graph.operators, strict=True):
        taken, given = (graph.tensors[index].quantization for index in (operator.inputs[0], operator.outputs[0]))
        assert -128 <= given.zeroPoint[0] <= 127
        if node == "PAD":
            assert (taken.scale, taken.zeroPoint) == (given.scale, given.zeroPoint)
        if "CONV" in node:
            weight, bias = (graph.tensors[index].quantization for index in operator.inputs[1:])
            channels = graph.tensors[operator.outputs[0]].shape[-1]
            assert len(weight.scale) == len(bias.scale) == channels
            assert not np.any(weight.zeroPoint)
            assert not np.any(bias.zeroPoint)
            assert np.allclose(bias.scale, taken.scale[0] * weight.scale, rtol=1e-6)
            assert weight.quantizedDimension == (3 if "DEPTHWISE" in node else 0)


def test_int8_keeps_the_scale_of_a_maximum_and_the_fixed_one_of_a_sigmoid():
    blocks = [block for block in OF_OTHER_SPACES if block.key in ("a maximum", "swish")]
    found = Counter()
    for model in (parsed(file_of(block, "int8")) for block in blocks):
        graph = model.subgraphs[0]
        for node, operator in zip(nodes_of(model), graph.operators, strict=True):
            taken, given = (graph.tensors[index].quantization for index in (operator.inputs[0], operator.outputs[0]))
            if node == "MAX_POOL_2D":
                assert (taken.scale, taken.zeroPoint) == (given.scale, given.zeroPoint)
            if node == "LOGISTIC":
                assert (given.scale, given.zeroPoint) == ([1 / 256], [-128])
            found[node] += 1
    assert (found["MAX_POOL_2D"], found["LOGISTIC"]) == (1, 4)


def test_a_padded_maximum_of_possibly_negative_values_is_refused():
    block = Block("refused", (4, 8, 8), (Conv(4, 4, 3), MaxPool(3, 2)))
    with pytest.raises(UsageError, match="TFLite pads with zeros alone"):
        lower("tflite", block, 1, "fp32")


def test_an_average_of_windows_that_would_begin_elsewhere_is_refused():
    block = Block("refused", (4, 9, 9), (Conv(4, 4, 3), AvgPool(4)))
    with pytest.raises(UsageError, match="TFLite would begin elsewhere: 9 by 9 px"):
        lower("tflite", block, 1, "fp32")


def test_a_precision_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match="no precision 'bf16'; there are fp32, fp16 and int8"):
        lower("tflite", OF_OTHER_SPACES[0], 1, "bf16")


def test_a_host_without_the_schema_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.schema_py_generated", None)
    with pytest.raises(UsageError, match=r"pip install 'ofa-profile\[tflite\]'"):
        lower("tflite", OF_OTHER_SPACES[0], 1)
    assert lower("onnxruntime", OF_OTHER_SPACES[0], 1).chunks
