"""Cache models by content hash, and write their files when a trial needs them, within size limits."""

import contextlib
import os
import shutil
import threading
from collections import OrderedDict
from typing import Any, Iterable, List

from ofa_agent.protocol import messages as wire

# Size of the file cache: this fraction of the free space, and at most MAX_FILES_BYTES.
FILES_SHARE = 0.25
MAX_FILES_BYTES = 4 << 30
MAX_RECIPE_BYTES = 256 << 20
# A model with more literal bytes is only in its file: beside others it would not fit into the memory for recipes.
MAX_LITERAL_BYTES = 64 << 20


class BadModel(ValueError):
    """A received model does not match its hash, cannot be generated, or is too large."""


class ModelCache:
    """Recipes (literal bytes and seeds) in memory and model files on disk, each a cache with LRU eviction."""

    def __init__(self, folder: str) -> None:
        if os.path.islink(folder):
            os.remove(folder)  # not what it leads to
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed agent
        os.makedirs(folder, mode=0o700)
        self.folder = folder
        self._max_files_bytes = min(MAX_FILES_BYTES, int(FILES_SHARE * shutil.disk_usage(folder).free))
        self._mutex = threading.Lock()  # one thread receives models, another writes their files
        self._arriving: "OrderedDict[str, List[wire.ModelChunk]]" = OrderedDict()
        self._recipes: "OrderedDict[str, List[wire.ModelChunk]]" = OrderedDict()
        self._files: "OrderedDict[str, int]" = OrderedDict()

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._recipes

    def forget_arriving(self) -> None:
        """Drop incomplete models; the host sends them again from the start."""
        self._arriving.clear()

    def receive(self, message: Any) -> bool:
        """Add one piece of a model; return True when the model is complete. Raises BadModel."""
        chunks = self._arriving.setdefault(message.model_id, [])
        try:
            chunks.extend(wire.model_chunks(message))
        except ValueError as error:
            del self._arriving[message.model_id]
            raise BadModel("model %s cannot be generated: %s" % (message.model_id, error)) from None
        if wire.chunks_size(chunks) > wire.MAX_MODEL_BYTES:
            del self._arriving[message.model_id]
            raise BadModel("model %s is larger than the limit of %d bytes" % (message.model_id, wire.MAX_MODEL_BYTES))
        if not message.last:
            self._make_room(message.model_id)
            return False
        recipe = wire.merged(self._arriving.pop(message.model_id))
        if wire.model_id_of(recipe) != message.model_id:
            raise BadModel("model %s arrived damaged: its content has a different hash" % message.model_id)
        if _held(recipe) > MAX_LITERAL_BYTES:
            try:
                self._store(message.model_id, recipe)
            except OSError as error:
                raise BadModel("cannot write the model to %s: %s; free some space" % (self.folder, error)) from None
            recipe = []
        with self._mutex:
            self._recipes[message.model_id] = recipe
        self._make_room(message.model_id)
        return True

    def _make_room(self, newest: str) -> None:
        """Forget models until all fit into memory with the newest one: first complete ones, then arriving ones."""
        with self._mutex:
            for models in (self._recipes, self._arriving):
                while self._held_bytes() > MAX_RECIPE_BYTES:
                    oldest = next((model_id for model_id in models if model_id != newest), None)
                    if oldest is None:
                        break
                    del models[oldest]

    def _held_bytes(self) -> int:
        return sum(_held(recipe) for models in (self._recipes, self._arriving) for recipe in models.values())

    def path(self, model_id: str) -> str:
        """Return the path of the model file, and write it if necessary. Raises KeyError if the model is unknown."""
        with self._mutex:
            recipe = self._recipes.get(model_id)
            if recipe is not None:
                self._recipes.move_to_end(model_id)
            is_there = model_id in self._files
        if not is_there:
            if not recipe:
                raise KeyError(model_id)
            self._store(model_id, recipe)
        with self._mutex:
            self._files.move_to_end(model_id)
        return os.path.join(self.folder, model_id)

    def _store(self, model_id: str, recipe: List[wire.ModelChunk]) -> None:
        """Write the file of a model, and remove older files beyond the limit. A model without recipe is forgotten."""
        size = self._write(model_id, wire.model_pieces(recipe))
        with self._mutex:
            self._files[model_id] = size
            while len(self._files) > 1 and sum(self._files.values()) > self._max_files_bytes:
                oldest, _ = self._files.popitem(last=False)
                os.remove(os.path.join(self.folder, oldest))
                if not self._recipes.get(oldest, True):
                    del self._recipes[oldest]

    def _write(self, model_id: str, pieces: Iterable[bytes]) -> int:
        path = os.path.join(self.folder, model_id)
        size = 0
        try:
            with open(path, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                    size += len(piece)
        except (OSError, MemoryError):  # a partial file would occupy the space that is needed
            with contextlib.suppress(OSError):  # if the file could not be created
                os.remove(path)
            raise
        return size

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _held(recipe: List[wire.ModelChunk]) -> int:
    return sum(len(chunk) if isinstance(chunk, bytes) else 24 for chunk in recipe)
