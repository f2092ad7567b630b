"""The model cache: models by content hash, written to disk when a trial needs them, within bounds."""

import contextlib
import os
import shutil
import threading
from collections import OrderedDict
from typing import Any, Dict, List

from ofa_agent.protocol import messages as wire

# A network that is timed again finds its file where there is room: this part of what is free, and no more than this.
FILES_SHARE = 0.25
MAX_FILES_BYTES = 4 << 30
MAX_RECIPE_BYTES = 256 << 20


class BadModel(ValueError):
    """What came is not the model that its hash names, or too large."""


class ModelCache:
    """Recipes (literal bytes and seeds) in memory, model files on disk; both bounded, the longest unused go first."""

    def __init__(self, folder: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # left by an agent that was killed
        os.makedirs(folder, mode=0o700)
        self.folder = folder
        self._max_files_bytes = min(MAX_FILES_BYTES, int(FILES_SHARE * shutil.disk_usage(folder).free))
        self._mutex = threading.Lock()  # models arrive in one thread and are written out in another
        self._arriving: Dict[str, List[wire.ModelChunk]] = {}
        self._recipes: "OrderedDict[str, List[wire.ModelChunk]]" = OrderedDict()
        self._files: "OrderedDict[str, int]" = OrderedDict()

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._recipes

    def forget_arriving(self) -> None:
        """Drop incomplete models: their host sends them again from the start."""
        self._arriving.clear()

    def receive(self, message: Any) -> bool:
        """One piece of a model; True when it is whole. Raises BadModel."""
        chunks = self._arriving.setdefault(message.model_id, [])
        try:
            chunks.extend(wire.model_chunks(message))
        except ValueError as error:
            del self._arriving[message.model_id]
            raise BadModel("model %s cannot be made here: %s" % (message.model_id, error)) from None
        if wire.chunks_size(chunks) > wire.MAX_MODEL_BYTES:
            del self._arriving[message.model_id]
            raise BadModel("model %s is larger than %d bytes" % (message.model_id, wire.MAX_MODEL_BYTES))
        if not message.last:
            return False
        recipe = wire.merged(self._arriving.pop(message.model_id))
        if wire.model_id_of(recipe) != message.model_id:
            raise BadModel("model %s arrived damaged: its content has another hash" % message.model_id)
        with self._mutex:
            self._recipes[message.model_id] = recipe
            while len(self._recipes) > 1 and sum(map(_held, self._recipes.values())) > MAX_RECIPE_BYTES:
                self._recipes.popitem(last=False)
        return True

    def path(self, model_id: str) -> str:
        """The model's file, made where it is not there. Raises KeyError where the model is neither."""
        with self._mutex:
            recipe = self._recipes.get(model_id)
            if recipe is not None:
                self._recipes.move_to_end(model_id)
        if model_id not in self._files:
            if recipe is None:
                raise KeyError(model_id)
            self._files[model_id] = self._write(model_id, wire.model_bytes(recipe))
        path = os.path.join(self.folder, model_id)
        self._files.move_to_end(model_id)
        while len(self._files) > 1 and sum(self._files.values()) > self._max_files_bytes:
            oldest, _ = self._files.popitem(last=False)
            os.remove(os.path.join(self.folder, oldest))
        return path

    def _write(self, model_id: str, content: bytes) -> int:
        path = os.path.join(self.folder, model_id)
        try:
            with open(path, "wb") as file:
                file.write(content)
        except OSError:  # half a file would keep the room that is lacking
            with contextlib.suppress(OSError):  # where not even that could be made
                os.remove(path)
            raise
        return len(content)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _held(recipe: List[wire.ModelChunk]) -> int:
    return sum(len(chunk) if isinstance(chunk, bytes) else 24 for chunk in recipe)
