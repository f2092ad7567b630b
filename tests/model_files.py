"""Small model files, made in the test."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ofa_agent import operators as ops
from ofa_agent.protocol import messages as wire
from ofa_profiler.lowering import lower

RNG = np.random.default_rng(0)


def weights(name, *shape, kind=np.float32):
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(kind), name)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save(path, nodes, inputs, outputs, initializers=(), domains=("",), **options):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid(domain, 15 if not domain else 1) for domain in domains]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), str(path), **options)
    return path


def conv_onnx(path, batch=1, size=16, **options):
    """A convolution, ReLU, and a linear layer; two outputs. MACs: 16·16·8·27 + 8·16·16·10."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "v"], ["y"], "last"),
    ]
    outputs = [value("y", None), value("r", None)]
    initializers = [weights("w", 8, 3, 3, 3), weights("v", 8 * (size or 16) ** 2, 10)]
    return save(path, nodes, [value("x", [batch, 3, size, size])], outputs, initializers, **options)


CONV_MACS = (16 * 16 * 8 * 27, 8 * 16 * 16 * 10)


def tokens_onnx(path, rows=50):
    """Token ids and a mask of bools into an embedding."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "embed"),
        helper.make_node("Cast", ["mask"], ["m"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "axis"], ["u"], "unsqueeze"),
        helper.make_node("Mul", ["e", "u"], ["y"], "mask"),
    ]
    inputs = [value("ids", [1, 7], TensorProto.INT64), value("mask", [1, 7], TensorProto.BOOL)]
    initializers = [weights("table", rows, 16), numpy_helper.from_array(np.array([2]), "axis")]
    return save(path, nodes, inputs, [value("y", None)], initializers)


def loop_onnx(path, runs=3):
    """A loop, whose body has two operators."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"], "double")],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("v", [64])],
        [value("on", [], TensorProto.BOOL), value("w", [64])],
    )
    count = numpy_helper.from_array(np.array(runs, np.int64), "count")
    loop = helper.make_node("Loop", ["count", "", "x"], ["y"], "loop", body=body)
    return save(path, [loop], [value("x", [64])], [value("y", [64])], [count])


def contradictory_onnx(path):
    """A product of shapes that do not fit."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    return save(path, [node], [value("x", [1, 4])], [value("y", [1, 2])], [weights("w", 5, 2)])


def custom_onnx(path):
    node = helper.make_node("Sparkle", ["x"], ["y"], "s", domain="acme")
    return save(path, [node], [value("x", [1, 4])], [value("y", [1, 4])], domains=("", "acme"))


BLOCK = ops.Block("small", (3, 12, 12), (ops.Conv(3, 8, 3), ops.Activation("relu6"), ops.Pool(), ops.Linear(8, 5)))


def small_tflite(path):
    """Made by our own lowering. MACs: 12·12·8·27 + 8·5."""
    path.write_bytes(wire.model_bytes(lower("tflite", BLOCK, 1).chunks))
    return path


def two_inputs_tflite(path):
    """The sum of two inputs, whose order in the signature is not that in the graph."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name, shape):
        return schema.TensorT(name=name, shape=list(shape), type=schema.TensorType.FLOAT32, buffer=0)

    def named(name, index):
        return schema.TensorMapT(name=name, tensorIndex=index)

    add = schema.OperatorT(opcodeIndex=0, inputs=[0, 1], outputs=[2])
    add.builtinOptionsType, add.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    graph = schema.SubGraphT(inputs=[0, 1], outputs=[2], operators=[add])
    graph.tensors = [tensor("small", (1, 4)), tensor("large", (3, 4)), tensor("sum", (3, 4))]
    signature = schema.SignatureDefT(signatureKey="serving_default", subgraphIndex=0)
    signature.inputs, signature.outputs = [named("b_large", 1), named("a_small", 0)], [named("y", 2)]
    code = schema.OperatorCodeT(builtinCode=schema.BuiltinOperator.ADD, version=1)
    model = schema.ModelT(version=3, operatorCodes=[code], subgraphs=[graph], buffers=[schema.BufferT()])
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def small_pt2(path):
    """A convolution and a linear layer, exported by PyTorch, with a keyword argument."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
            self.head = torch.nn.Linear(4, 2)

        def forward(self, image, scale=None):
            return self.head(torch.relu(self.conv(image)).mean((2, 3)) * scale)

    program = torch.export.export(Net().eval(), (torch.zeros(1, 3, 8, 8),), {"scale": torch.ones(1)})
    torch.export.save(program, str(path))
    return path
