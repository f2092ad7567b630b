import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import ofa_agent
from ofa_agent import operators as ops
from ofa_agent.measuring.timing import Budget
from ofa_agent.protocol import messages as wire
from ofa_agent.protocol.messages import SeededValues

SOURCES = Path(ofa_agent.__file__).parent / "protocol"

EVERY_KIND = ops.Block(
    "every kind",
    (8, 9, 9),
    (
        ops.Add(0),
        ops.Conv(8, 16, 3, stride=2, groups=4, bias=False),
        *(ops.Activation(function) for function in ops.ACTIVATIONS),
        ops.SqueezeExcite(16, 4),
        ops.SqueezeExcite(16, 4, "swish", "sigmoid"),
        ops.Conv(16, 16, 1),
        ops.Add(7),
        ops.Take(7),
        ops.MaxPool(3, 2),
        ops.AvgPool(2),
        ops.Pool(),
        ops.Linear(16, 10, bias=False),
        ops.Linear(10, 3),
    ),
)


def sent(message):
    """Serialise and parse a message."""
    return type(message).FromString(message.SerializeToString())


def one_job(block=EVERY_KIND, **settings):
    return wire.job_message(block, wire.Settings(**{"batch": 1, "threads": 1, **settings}))


def test_a_block_with_every_kind_of_operator_round_trips():
    assert set(map(type, EVERY_KIND.operators)) == set(wire._OPERATORS.values())
    settings = wire.Settings(runtime="tflite", precision="int8", batch=4, threads=2)
    job = sent(wire.job_message(EVERY_KIND, settings, "a model"))
    assert wire.job_block(job) == EVERY_KIND
    assert job.seed == EVERY_KIND.seed
    assert job.model_id == "a model"
    plain = {"runtime": "tflite", "precision": "int8", "batch": 4, "threads": 2, "command": ""}
    assert wire.to_dict(job.settings) == plain


def test_an_operator_of_a_newer_host_is_not_ignored():
    job = one_job()
    job.operators.add()
    with pytest.raises(ops.InvalidBlock, match="update the agent"):
        wire.job_block(sent(job))


def test_a_job_with_missing_or_mismatched_operators_is_refused():
    with pytest.raises(ops.InvalidBlock):
        wire.job_block(wire.Job(key="empty", input_shape=[8, 9, 9], settings=one_job().settings))
    with pytest.raises(ops.InvalidBlock):
        wire.job_block(one_job(ops.Block("misfit", (4, 9, 9), EVERY_KIND.operators)))


@pytest.mark.parametrize("batch", [0, 1 << 20, (1 << 32) - 1])
def test_an_invalid_batch_is_refused(batch):
    with pytest.raises(ops.InvalidBlock, match="batch"):
        wire.job_block(one_job(batch=batch))


def test_too_many_threads_are_refused():
    with pytest.raises(ops.InvalidBlock, match="threads"):
        wire.job_block(one_job(threads=100_000))


def test_a_budget_round_trips():
    budget = Budget(0.25, 0.004, 0.01, 0.02, 3, 0.001)
    trial = wire.Trial()
    wire.set_budget(trial.budget, budget, 12.5)
    assert wire.budget_of(sent(trial).budget) == budget
    assert trial.budget.trial_timeout_s == 12.5


def test_the_compiled_protocol_matches_its_sources(tmp_path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    compiled = tmp_path / "protocol.binpb"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={SOURCES}", "--include_imports"),
            *(f"--descriptor_set_out={compiled}", "agent.proto", "health.proto"),
        ],
        check=True,
    )
    assert compiled.read_bytes() == (SOURCES / "protocol.binpb").read_bytes(), "run: make protocol"


FOREIGN_HEALTH = """
from google.protobuf import descriptor_pb2, descriptor_pool
file = descriptor_pb2.FileDescriptorProto(name="health.proto", package="grpc.health.v1", syntax="proto3")
request = file.message_type.add(name="HealthCheckRequest")
request.field.add(name="another_field", number=9, type=9, label=1)
file.message_type.add(name="HealthCheckResponse")
"""
REGISTERED = "descriptor_pool.Default().AddSerializedFile(file.SerializeToString())\n"
OURS = (
    "from ofa_agent.protocol import messages as wire\n"
    "assert wire.HealthCheckResponse(status=1).SerializeToString() == b'\\x08\\x01'\n"
)


@pytest.mark.parametrize("order", [REGISTERED + OURS, OURS + REGISTERED], ids=["theirs first", "ours first"])
def test_health_messages_of_another_package_do_not_conflict(order):
    subprocess.run([sys.executable, "-c", FOREIGN_HEALTH + order], check=True)


# Models.


def a_model(seed, literals=4, longest=5000):
    """Return random chunks as lowering creates them: none empty, no adjacent literals."""
    rng = random.Random(seed)
    chunks = []
    for _ in range(literals):
        chunks.append(rng.randbytes(rng.randrange(1, longest)))
        chunks.append(SeededValues(rng.getrandbits(48), rng.randrange(1, 100), rng.random()))
    return chunks


def arrived(messages):
    return wire.merged(chunk for message in messages for chunk in wire.model_chunks(sent(message)))


@pytest.mark.parametrize("message_bytes", [64, 1000, 1 << 20])
@pytest.mark.parametrize("seed", range(3))
def test_a_model_split_into_messages_keeps_its_hash_and_bytes(seed, message_bytes):
    chunks = a_model(seed)
    model_id = wire.model_id_of(chunks)
    messages = wire.model_messages(model_id, chunks, message_bytes)
    assert wire.model_id_of(arrived(messages)) == model_id
    assert wire.model_bytes(arrived(messages)) == wire.model_bytes(chunks)
    assert {message.model_id for message in messages} == {model_id}
    assert [message.last for message in messages] == [False] * (len(messages) - 1) + [True]


def test_messages_of_a_model_stay_below_the_size_limit():
    messages = wire.model_messages("id", [bytes(10_000), *a_model(1, literals=50)], message_bytes=2000)
    assert len(messages) > 5
    assert max(message.ByteSize() for message in messages) < 2 * 2000


def test_a_seed_is_sent_instead_of_its_values():
    chunks = [b"head", SeededValues(5, 1 << 20, 0.5)]
    (message,) = wire.model_messages("id", chunks)
    assert message.ByteSize() < 100
    assert wire.chunks_size(chunks) == 4 + (4 << 20)
    assert wire.model_bytes(chunks)[4:] == ops.seeded(5, 1 << 20, 0.5).tobytes()


def test_the_hash_distinguishes_models():
    models = [
        [b"ab"],
        [b"a"],
        [SeededValues(1, 2, 0.5)],
        [SeededValues(2, 1, 0.5)],
        [SeededValues(1, 2, 0.25)],
        [b"seeded" + struct.pack("<QQd", 1, 2, 0.5)],
        [b"a", SeededValues(1, 2, 0.5)],
        [SeededValues(1, 2, 0.5), b"a"],
    ]
    assert len({wire.model_id_of(chunks) for chunks in models}) == len(models)


def test_adjacent_literals_are_merged():
    seeded = SeededValues(1, 2, 0.5)
    assert wire.merged([b"a", b"", b"b", seeded, b"", seeded, b"c", b"d"]) == [b"ab", seeded, seeded, b"cd"]
    assert wire.merged([]) == []


# Plain data.


@pytest.mark.parametrize("name", ["Description", "Measurement", "Trial", "Condition", "AgentMessage"])
def test_plain_data_has_every_field_even_of_an_empty_message(name):
    message_class = getattr(wire, name)
    assert set(wire.to_dict(message_class())) == {field.name for field in message_class.DESCRIPTOR.fields}


def test_plain_data_matches_the_message():
    description = wire.Description(chip="A57", memory_bytes=1 << 33, runtimes={"onnxruntime": "1.10.0"})
    description.clusters.add(cpus=[0, 3], max_mhz=2035)
    description.condition.temperatures_c["GPU-therm"] = 41.5
    facts = wire.to_dict(sent(description))
    assert facts["chip"] == "A57"
    assert facts["memory_bytes"] == 1 << 33
    assert facts["runtimes"] == {"onnxruntime": "1.10.0"}
    assert facts["missing_runtimes"] == {}
    assert facts["clusters"] == [{"cpus": [0, 3], "max_mhz": 2035}]
    condition = facts["condition"]
    assert condition["temperatures_c"] == {"GPU-therm": 41.5}
    assert (condition["governor"], condition["clock_mhz"], condition["load"], condition["hot"]) == ("", 0, 0.0, False)
