import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ofa_agent.protocol import messages as wire
from ofa_agent.protocol.messages import SeededValues
from ofa_agent.service import models
from ofa_agent.service.models import BadModel, ModelCache


@pytest.fixture
def cache(tmp_path):
    return ModelCache(str(tmp_path / "models"))


def receive(cache, chunks, model_id=None, message_bytes=1 << 20):
    """Send a model to the cache piece by piece, and return its id."""
    model_id = model_id or wire.model_id_of(chunks)
    messages = wire.model_messages(model_id, chunks, message_bytes)
    assert [cache.receive(message) for message in messages] == [False] * (len(messages) - 1) + [True]
    return model_id


def literal(number, size=1000):
    return [bytes([number]) * size]


def test_a_model_is_available_when_it_is_complete(cache):
    chunks = [b"x" * 3000]
    model_id = wire.model_id_of(chunks)
    first, *others, last = wire.model_messages(model_id, chunks, 1000)
    assert not cache.receive(first)
    assert model_id not in cache
    assert not any(cache.receive(message) for message in others)
    assert cache.receive(last)
    assert model_id in cache


def test_two_models_can_arrive_at_the_same_time(cache):
    one, two = [b"1" * 3000], [b"2" * 3000]
    for parts in zip(*(wire.model_messages(wire.model_id_of(model), model, 1000) for model in (one, two)), strict=True):
        for part in parts:
            cache.receive(part)
    assert Path(cache.path(wire.model_id_of(two))).read_bytes() == two[0]


def test_a_model_with_a_different_hash_is_refused(cache):
    with pytest.raises(BadModel, match="different hash"):
        receive(cache, [b"content"], model_id="0" * 64)
    assert "0" * 64 not in cache


def test_a_refused_model_can_be_sent_again(cache):
    good = [b"content"]
    model_id = wire.model_id_of(good)
    with pytest.raises(BadModel):
        receive(cache, [b"damaged"], model_id)
    receive(cache, good, model_id)
    assert Path(cache.path(model_id)).read_bytes() == b"content"


@pytest.mark.parametrize("length", [wire.MAX_MODEL_BYTES // 4 + 1, 1 << 63])
def test_a_model_that_is_too_large_is_refused_before_it_is_expanded(cache, length, monkeypatch):
    monkeypatch.setattr(wire.ops, "seeded", None)  # fails if the values are generated
    with pytest.raises(BadModel, match="larger than"):
        receive(cache, [SeededValues(1, length, 1.0)])


def test_pieces_that_are_too_large_together_are_refused(cache, monkeypatch):
    monkeypatch.setattr(wire, "MAX_MODEL_BYTES", 2500)
    with pytest.raises(BadModel, match="larger than"):
        receive(cache, literal(1, 3000), message_bytes=1000)


def test_a_file_is_written_on_first_use(cache, tmp_path):
    chunks = [b"head", SeededValues(3, 10, 0.5), b"tail"]
    model_id = receive(cache, chunks)
    assert list((tmp_path / "models").iterdir()) == []
    assert Path(cache.path(model_id)).read_bytes() == wire.model_bytes(chunks)
    assert [file.name for file in (tmp_path / "models").iterdir()] == [model_id]


def test_an_unknown_model_has_no_file(cache):
    with pytest.raises(KeyError):
        cache.path("0" * 64)
    with pytest.raises(KeyError):
        cache.path("../../somewhere")


def test_files_are_evicted_least_recently_used_first(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "MAX_FILES_BYTES", 2500)
    cache = ModelCache(str(tmp_path / "bounded"))
    one, two, three = (receive(cache, literal(number)) for number in (1, 2, 3))
    paths = {model_id: Path(cache.path(model_id)) for model_id in (one, two)}
    cache.path(one)
    cache.path(three)
    assert paths[one].exists()
    assert not paths[two].exists()
    assert Path(cache.path(two)).read_bytes() == literal(2)[0]


def test_recipes_are_evicted_least_recently_used_first(cache, monkeypatch):
    monkeypatch.setattr(models, "MAX_RECIPE_BYTES", 2500)
    ids = [receive(cache, literal(number)) for number in (1, 2, 3, 4)]
    assert [model_id in cache for model_id in ids] == [False, False, True, True]


def test_a_used_recipe_outlives_an_unused_one(cache, monkeypatch):
    monkeypatch.setattr(models, "MAX_RECIPE_BYTES", 2500)
    one, two = (receive(cache, literal(number)) for number in (1, 2))
    cache.path(one)
    receive(cache, literal(3))
    assert one in cache
    assert two not in cache


def test_a_single_model_is_kept_even_if_it_exceeds_the_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "MAX_FILES_BYTES", 10)
    cache = ModelCache(str(tmp_path / "bounded"))
    monkeypatch.setattr(models, "MAX_RECIPE_BYTES", 10)
    model_id = receive(cache, literal(1))
    assert Path(cache.path(model_id)).exists()


def test_a_failed_write_leaves_no_file(cache, tmp_path, monkeypatch):
    model_id = receive(cache, literal(1))
    with monkeypatch.context() as patched:
        patched.setattr(models, "open", FullDisk, raising=False)
        with pytest.raises(OSError, match="No space"):
            cache.path(model_id)
    assert list((tmp_path / "models").iterdir()) == []
    assert Path(cache.path(model_id)).read_bytes() == literal(1)[0]


def test_a_failure_to_create_the_file_is_reported(cache, monkeypatch):
    def full(path, mode):
        raise OSError(28, "No space left on device", path)

    model_id = receive(cache, literal(1))
    monkeypatch.setattr(models, "open", full, raising=False)
    with pytest.raises(OSError, match="No space"):
        cache.path(model_id)


class FullDisk:
    """``open`` on a full device: half of the content is written."""

    def __init__(self, path, mode):
        self._path = Path(path)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def write(self, content):
        self._path.write_bytes(content[: len(content) // 2])
        raise OSError(28, "No space left on device")


def test_files_of_a_killed_agent_are_removed(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "stale").write_bytes(b"old")
    cache = ModelCache(str(folder))
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700
    cache.close()
    assert not folder.exists()


def test_models_that_are_still_arriving_count_towards_the_limit(cache, monkeypatch):
    monkeypatch.setattr(models, "MAX_RECIPE_BYTES", 2500)
    complete = receive(cache, literal(1))
    for number in range(2, 20):  # the first half of many models
        content = literal(number)
        cache.receive(wire.model_messages(wire.model_id_of(content), content, 500)[0])
        held = sum(len(chunk) for recipe in [*cache._arriving.values(), *cache._recipes.values()] for chunk in recipe)
        assert held <= 2500
    assert complete not in cache
    assert receive(cache, literal(1)) in cache


def test_a_large_model_is_never_in_memory_as_a_whole(cache, tmp_path):
    chunks = [b"head", *(SeededValues(seed, 3_000_000, 0.5) for seed in range(8))]
    model_id = receive(cache, chunks)
    tracemalloc.start()
    path = cache.path(model_id)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert Path(path).stat().st_size == 4 + 8 * 12_000_000
    assert peak < 40_000_000


def test_values_drawn_in_pieces_are_the_same(monkeypatch):
    whole = wire.ops.drawn(7, 1000, 0.5)
    expected = (np.random.default_rng(7).standard_normal(1000) * 0.5).astype("<f4")
    monkeypatch.setattr(wire.ops, "PIECE", 13)
    assert whole.tobytes() == expected.tobytes() == wire.ops.drawn(7, 1000, 0.5).tobytes()
    chunks = [b"head", SeededValues(7, 1000, 0.5), SeededValues(7, 1000, 0.5, 10, "float16")]
    assert b"".join(wire.model_pieces(chunks)) == wire.model_bytes(chunks)


@pytest.fixture
def on_disk(monkeypatch):
    monkeypatch.setattr(models, "MAX_LITERAL_BYTES", 100)


def test_a_large_file_is_kept_on_the_disk_only(cache, on_disk):
    """Beside others, it would not fit into the memory for recipes."""
    model_id = receive(cache, literal(1))
    assert model_id in cache
    assert cache._held_bytes() == 0
    assert Path(cache.path(model_id)).read_bytes() == literal(1)[0]


def test_a_large_file_that_was_removed_is_asked_for_again(cache, on_disk, monkeypatch):
    monkeypatch.setattr(cache, "_max_files_bytes", 1500)
    first, second = receive(cache, literal(1)), receive(cache, literal(2))
    assert (first in cache, second in cache) == (False, True)
    with pytest.raises(KeyError):
        cache.path(first)
    receive(cache, literal(1))
    assert Path(cache.path(first)).read_bytes() == literal(1)[0]


def test_a_large_file_without_room_on_the_disk_is_refused(cache, on_disk, monkeypatch):
    def full(model_id, pieces):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_write", full)
    with pytest.raises(BadModel, match=r"No space left on device.*free some space"):
        receive(cache, literal(1))


def test_many_pieces_are_joined_in_one_step(cache):
    """The time grows with the size, not with its square."""
    pieces = [b"ab"] * 20_000
    assert wire.merged([*pieces, SeededValues(1, 2, 1.0), *pieces]) == [
        b"ab" * 20_000,
        SeededValues(1, 2, 1.0),
        b"ab" * 20_000,
    ]
