"""The weights, the optimizer, and one training step."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ofa_nas.spaces import Architecture
from ofa_nas.supernet import Supernet
from ofa_nas.supernet.batch_norm import BatchNorm
from ofa_nas.training.data import Batch
from ofa_nas.training.options import Options
from ofa_nas.training.processes import Processes
from ofa_nas.training.teacher import Teacher

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """``model`` is called with images and an Architecture. Call ``begin`` before the first step."""

    def __init__(self, model: Supernet, options: Options, processes: Processes) -> None:
        self.model: Any = model.to(processes.device, memory_format=torch.channels_last)
        self.teacher: Teacher | None = None
        self._options, self._processes = options, processes
        self._averaged: _Average | None = None
        self._optimizer: Any = None
        self._scaler: Any = None
        if options.batch_norm == "shared" or (options.batch_norm == "auto" and processes.world > 1):
            for layer in self.model.modules():
                if isinstance(layer, BatchNorm):
                    layer.moments = processes.moments

    def begin(self) -> None:
        """Start a stage with a new optimizer: SGD with Nesterov momentum, without weight decay for batch norm and
        biases. The average of the weights restarts, too, since sorted channels invalidate it.
        """
        named = list(self.model.named_parameters())
        decays = [not (".bn." in f".{name}" or name.endswith("bias")) for name, _ in named]
        groups = [
            [parameter for (_, parameter), does in zip(named, decays, strict=True) if does is wanted]
            for wanted in (True, False)
        ]
        options = self._options
        self._optimizer = torch.optim.SGD(
            [{"params": groups[0], "weight_decay": options.weight_decay}, {"params": groups[1], "weight_decay": 0.0}],
            lr=0.0,
            momentum=options.momentum,
            nesterov=True,
            fused=True,
        )
        for _, parameter in named:  # the fused step wants a momentum for each, used so far or not
            self._optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self._scaler = torch.amp.GradScaler(self._processes.device.type, enabled=options.precision == "fp16")
        self._averaged = _Average(self.model, options.ema) if options.ema else None

    def step(self, batch: Batch, chosen: Sequence[Architecture], rate: float, seed: tuple[int, ...]) -> float:
        """One update; the gradients of the ``chosen`` sub-networks are summed. ``seed`` is for dropout.

        Returns the loss, averaged over sub-networks and processes. If it is not finite, nothing is updated.
        """
        device = self._processes.device
        images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
        labels = batch.labels.to(device)
        self.model.train()
        self._optimizer.zero_grad()
        soft = self._soft_labels(images)
        total = torch.zeros((), device=device)
        for number, architecture in enumerate(chosen):
            for part in _parts(len(images), self._options.accumulate):
                self._draw_dropout(part.start, len(images), (*seed, number))
                with self._autocast():
                    logits = self.model(images[part], architecture)
                loss = self._loss(logits.float(), labels[part], None if soft is None else soft[part])
                loss = loss * (len(labels[part]) / len(labels))
                self._scaler.scale(loss).backward()
                total += loss.detach()
        mean = float(self._processes.mean(total)) / len(chosen)
        if np.isfinite(mean):
            self._update(rate)
        return mean

    def _update(self, rate: float) -> None:
        self._processes.average_gradients(self.model.parameters())
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._averaged is not None:
            self._averaged.update(self.model)

    def _loss(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        """The loss on the labels, plus the distillation loss (Hinton et al., 2015) if there is a teacher."""
        loss = functional.cross_entropy(logits, labels, label_smoothing=self._options.label_smoothing)
        return loss if soft is None else loss + self._options.distillation * functional.cross_entropy(logits, soft)

    @torch.no_grad()
    def _soft_labels(self, images: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        with self._autocast():
            return functional.softmax(self.teacher(images).float(), 1)

    def _autocast(self) -> AbstractContextManager[Any]:
        half = HALVES.get(self._options.precision)
        return torch.autocast(self._processes.device.type, half, enabled=half is not None)

    def _draw_dropout(self, start: int, rows: int, seed: tuple[int, ...]) -> None:
        drawn = int(np.random.SeedSequence((self._options.seed, *seed)).generate_state(1)[0])
        self.model.dropout.draw_from(drawn, self._processes.rank * rows + start, self._processes.world * rows)

    def learn_from(self, architecture: Architecture, statistics: Iterable[tuple[int, Iterable[Tensor]]]) -> None:
        """Use the sub-network, as it is now, as the teacher; ``statistics`` are batches of images per px to estimate
        batch norm. Only the teacher is compiled, since every sub-network is a different graph.
        """
        device, compiled = self._processes.device, self._options.compile
        self.teacher = Teacher.of(self.model, architecture, statistics, device, compiled)

    def is_finite(self) -> bool:
        """Whether the weights are finite: the last update may be too large although its loss was finite."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters())

    def take_average(self) -> None:
        """Replace the weights by their moving average, if it is kept."""
        if self._averaged is not None:
            self._averaged.put_into(self.model)

    def tensors(self) -> dict[str, Any]:
        """What is needed to resume, by name."""
        found = {"model": self.model.state_dict()}
        if self._optimizer is not None:
            found |= {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}
        if self.teacher is not None:
            found["teacher"] = self.teacher.state()
        if self._averaged is not None:
            found["averaged"] = self._averaged.state()
        return found

    def load(self, tensors: Mapping[str, Any], largest: Architecture) -> None:
        """Restore the state that ``tensors`` returned."""
        self.model.load_state_dict(tensors["model"])
        if "optimizer" in tensors:
            self.begin()
            self._optimizer.load_state_dict(tensors["optimizer"])
            self._scaler.load_state_dict(tensors["scaler"])
        if "teacher" in tensors:
            network, compiled = self.model.extract(largest), self._options.compile
            self.teacher = Teacher.from_state(tensors["teacher"], network, self._processes.device, compiled)
        if self._averaged is not None:
            self._averaged.load(tensors["averaged"])


class _Average:
    """Exponential moving average of the weights. A young average forgets faster, or the first weights would dominate
    it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._weights = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        for name, parameter in model.named_parameters():
            self._weights[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def put_into(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(self._weights[name])

    def state(self) -> dict[str, Any]:
        return {"updates": self._updates, "weights": self._weights}

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        self._updates = state["updates"]
        for name, weight in self._weights.items():
            weight.copy_(state["weights"][name])


def _parts(rows: int, count: int) -> list[slice]:
    edges = np.linspace(0, rows, min(count, rows) + 1).astype(int)
    return [slice(int(start), int(end)) for start, end in pairwise(edges)]
