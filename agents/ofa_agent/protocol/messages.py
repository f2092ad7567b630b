"""Build the messages of the protocol from compiled descriptors at run time, for every protobuf since 3.19.

The descriptors are in a separate pool, because another package may contain ``health.proto`` too.
"""

import hashlib
import pkgutil
import struct
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Sequence, Union

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from ofa_agent import operators as ops
from ofa_agent.inputs import ModelInput, check_inputs
from ofa_agent.measuring.timing import Budget

PROTOCOL = 7
SERVICE = "ofa_agent.Agent"
HEALTH_SERVICE = "grpc.health.v1.Health"

# The limit for one model in the memory of the agent.
MAX_MODEL_BYTES = 1 << 30

MAX_THREADS = 1024

# The limit for ``trial_timeout_s``, in seconds: long enough for the tools that compile a model before they time it.
MAX_TRIAL_S = 6 * 3600.0

FORM_BYTES = {form: int(kind[-1]) for form, kind in ops.FORMS.items()}

Message = Any  # message classes exist only at run time


def _message_classes() -> Dict[str, Message]:
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(pkgutil.get_data("ofa_agent.protocol", "protocol.binpb") or b"")
    for file in files.file:
        pool.Add(file)
    names = ["%s.%s" % (file.package, message.name) for file in files.file for message in file.message_type]
    descriptors = [pool.FindMessageTypeByName(name) for name in names]
    if hasattr(message_factory, "GetMessageClass"):
        classes = [message_factory.GetMessageClass(descriptor) for descriptor in descriptors]
    else:  # protobuf 3
        factory: Any = message_factory.MessageFactory(pool)
        classes = [factory.GetPrototype(descriptor) for descriptor in descriptors]
    return {descriptor.name: message_class for descriptor, message_class in zip(descriptors, classes)}


_classes = _message_classes()

DescribeRequest = _classes["DescribeRequest"]
Description = _classes["Description"]
Cluster = _classes["Cluster"]
Condition = _classes["Condition"]
HostMessage = _classes["HostMessage"]
AgentMessage = _classes["AgentMessage"]
Hello = _classes["Hello"]
Welcome = _classes["Welcome"]
Trial = _classes["Trial"]
Job = _classes["Job"]
Part = _classes["Part"]
ModelFile = _classes["ModelFile"]
LayerSamples = _classes["LayerSamples"]
PartSamples = _classes["PartSamples"]
Settings = _classes["Settings"]
Model = _classes["Model"]
Chunk = _classes["Chunk"]
Acknowledge = _classes["Acknowledge"]
ModelWanted = _classes["ModelWanted"]
Measurement = _classes["Measurement"]
Summary = _classes["Summary"]
WorkerReady = _classes["WorkerReady"]
WorkerTrial = _classes["WorkerTrial"]
HealthCheckRequest = _classes["HealthCheckRequest"]
HealthCheckResponse = _classes["HealthCheckResponse"]

_OPERATORS: Dict[str, Any] = {
    "conv": ops.Conv,
    "activation": ops.Activation,
    "pool": ops.Pool,
    "max_pool": ops.MaxPool,
    "avg_pool": ops.AvgPool,
    "linear": ops.Linear,
    "squeeze_excite": ops.SqueezeExcite,
    "add": ops.Add,
    "take": ops.Take,
}
_OPERATOR_FIELDS = {operator_class: field for field, operator_class in _OPERATORS.items()}


def job_message(block: ops.Block, settings: Message, model_id: str = "", others_bytes: int = 0) -> Message:
    """Return the ``Job`` message that times ``block`` with ``settings``."""
    job = Job(key=block.key, input_shape=block.input_shape, seed=block.seed, model_id=model_id, settings=settings)
    job.others_bytes = others_bytes
    for operator in block.operators:
        field = _OPERATOR_FIELDS[type(operator)]
        message = getattr(job.operators.add(), field)
        message.SetInParent()  # keeps an operator whose fields are all zero
        for name, value in zip(operator._fields, operator):
            setattr(message, name, value)
    return job


def file_job_message(
    key: str, file_format: str, inputs: Sequence[ModelInput], layers: bool, settings: Message, model_id: str
) -> Message:
    """Return the ``Job`` message that times a model file of the user."""
    job = Job(key=key, model_id=model_id, settings=settings)
    job.file.format, job.file.layers = file_format, layers
    for each in inputs:
        job.file.inputs.add(name=each.name, kind=each.kind, shape=each.shape, below=each.below)
    return job


def job_inputs(job: Message) -> List[ModelInput]:
    """Return the inputs of a job with a model file, checked. Raises InvalidBlock."""
    inputs = [ModelInput(each.name, each.kind, tuple(each.shape), each.below) for each in job.file.inputs]
    check_inputs(job.key, inputs)
    _check_threads(job)
    return inputs


def job_block(job: Message) -> ops.Block:
    """Return the block of a ``Job`` message, checked. Raises InvalidBlock."""
    operators = []
    for message in job.operators:
        field = message.WhichOneof("operator")
        if field is None:
            raise ops.InvalidBlock("%s has an operator that this agent does not support; update the agent" % job.key)
        operator_class = _OPERATORS[field]
        inner = getattr(message, field)
        operators.append(operator_class(*(getattr(inner, name) for name in operator_class._fields)))
    block = ops.Block(job.key, tuple(job.input_shape), tuple(operators))
    shapes = ops.shapes(block.operators, block.input_shape)
    batch = job.settings.batch
    largest = max(ops.product(shapes[0]), ops.product(shapes[-1]))
    if batch < 1 or batch * largest > ops.MAX_VALUES:
        raise ops.InvalidBlock("%s at batch %d exceeds the size limit" % (job.key, batch))
    _check_threads(job)
    if job.parts and sum(part.operators for part in job.parts) != len(block.operators):
        raise ops.InvalidBlock("the parts of %s do not add up to its %d operators" % (job.key, len(block.operators)))
    return block


def _check_threads(job: Message) -> None:
    if job.settings.threads > MAX_THREADS:
        raise ops.InvalidBlock("%d threads exceed the limit of %d" % (job.settings.threads, MAX_THREADS))


def wanted_models(trial: Message) -> List[str]:
    """Return the ids of the models that a trial requires."""
    return [job.model_id for job in (trial.job, trial.reference) if job.model_id]


def set_budget(message: Message, budget: Budget, trial_timeout_s: float, cool_s: float = 0.0) -> None:
    for name, value in zip(budget._fields, budget):
        setattr(message, name, value)
    message.trial_timeout_s, message.cool_s = trial_timeout_s, cool_s


def budget_of(message: Message) -> Budget:
    return Budget(*(getattr(message, name) for name in Budget._fields))


class SeededValues(NamedTuple):
    """``length`` values that the agent generates; see ``operators.seeded``."""

    seed: int
    length: int
    scale: float
    rows: int = 0
    form: str = ""

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.length * FORM_BYTES[self.form]


ModelChunk = Union[bytes, SeededValues]

# Returns the float32 values of a weight tensor for (seed, number of values, standard deviation).
Source = Callable[[int, int, float], Any]


def model_id_of(chunks: Iterable[ModelChunk]) -> str:
    """Return the content hash that identifies a model in messages and in the cache of the agent."""
    digest = hashlib.sha256()
    for chunk in chunks:
        if isinstance(chunk, bytes):
            digest.update(b"literal" + struct.pack("<Q", len(chunk)) + chunk)
        else:
            digest.update(b"seeded" + struct.pack("<QQd", *chunk[:3]))
            if chunk.rows or chunk.form:
                digest.update(b"formed" + struct.pack("<QQ", chunk.rows, len(chunk.form)) + chunk.form.encode())
    return digest.hexdigest()


def model_bytes(chunks: Iterable[ModelChunk], source: Source = ops.drawn) -> bytes:
    """Return the model file; ``source`` provides the weights, by default the random weights for measurements."""
    return b"".join(chunk if isinstance(chunk, bytes) else _written(chunk, source) for chunk in chunks)


def model_pieces(chunks: Iterable[ModelChunk]) -> Iterator[bytes]:
    """Yield the model file for measurements in pieces, so that a large model never is in memory as a whole."""
    for chunk in chunks:
        if isinstance(chunk, bytes):
            yield chunk
        elif chunk.rows or chunk.form:  # the layout requires the whole tensor
            yield _written(chunk, ops.drawn)
        else:
            ops.check_seeded(chunk.length, chunk.rows, chunk.form)
            for values in ops.drawn_pieces(chunk.seed, chunk.length, chunk.scale):
                yield values.tobytes()


def _written(values: SeededValues, source: Source) -> bytes:
    ops.check_seeded(values.length, values.rows, values.form)
    return ops.laid_out(source(values.seed, values.length, values.scale), values.rows, values.form).tobytes()


def model_messages(model_id: str, chunks: Iterable[ModelChunk], message_bytes: int = 1 << 20) -> List[Message]:
    """Return a model as messages below the size limit of gRPC; ``last`` marks the last one."""
    messages = [Model(model_id=model_id)]
    room = message_bytes
    for chunk in _split(chunks, message_bytes):
        size = len(chunk) if isinstance(chunk, bytes) else 64
        if size > room:
            messages.append(Model(model_id=model_id))
            room = message_bytes
        room -= size
        if isinstance(chunk, bytes):
            messages[-1].chunks.add(literal=chunk)
        else:
            messages[-1].chunks.add().seeded.MergeFrom(_classes["Seeded"](**chunk._asdict()))
    messages[-1].last = True
    return messages


def model_chunks(message: Message) -> List[ModelChunk]:
    """Return the chunks of a message. Raises ValueError for values that this agent cannot generate."""
    chunks: List[ModelChunk] = []
    for chunk in message.chunks:
        if chunk.WhichOneof("chunk") == "literal":
            chunks.append(chunk.literal)
        else:
            seeded = SeededValues(*(getattr(chunk.seeded, name) for name in SeededValues._fields))
            ops.check_seeded(seeded.length, seeded.rows, seeded.form)
            chunks.append(seeded)
    return chunks


def merged(chunks: Iterable[ModelChunk]) -> List[ModelChunk]:
    """Join adjacent literals, so that the hash does not depend on how the messages were split."""
    result: List[ModelChunk] = []
    literals: List[bytes] = []
    for chunk in [*chunks, None]:
        if isinstance(chunk, bytes):
            literals.append(chunk)
            continue
        literal, literals = b"".join(literals), []
        result.extend([literal] if literal else [])
        result.extend([chunk] if chunk is not None else [])
    return result


def chunks_size(chunks: Iterable[ModelChunk]) -> int:
    return sum(len(chunk) if isinstance(chunk, bytes) else chunk.size for chunk in chunks)


def _split(chunks: Iterable[ModelChunk], limit: int) -> Iterable[ModelChunk]:
    for chunk in chunks:
        if isinstance(chunk, bytes):
            for start in range(0, len(chunk), limit):
                yield chunk[start : start + limit]
        else:
            yield chunk


def method(service: str, name: str) -> str:
    return "/%s/%s" % (service, name)


def to_dict(message: Message) -> Dict[str, Any]:
    """Return a message as plain data with every field, for ``--json`` and for tables."""
    return {field.name: _plain(getattr(message, field.name), field) for field in message.DESCRIPTOR.fields}


def _plain(value: Any, field: Any) -> Any:
    if field.message_type is None:
        return list(value) if _is_repeated(field) else value
    if field.message_type.GetOptions().map_entry:
        return dict(value)
    return [to_dict(item) for item in value] if _is_repeated(field) else to_dict(value)


def _is_repeated(field: Any) -> bool:
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == field.LABEL_REPEATED)
