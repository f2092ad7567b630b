"""Compare the speed of a training step with the published package's layers, for the same arithmetic.

    python scripts/training_speed.py [--batch 16] [--px 128] [--threads 2] [--repeats 15] [--device cpu]

Takes PyPI's `ofa` in the same environment. One sub-network; one with distillation; four with distillation: the same
sub-networks, both alternating in one run. The ratio is the median of the ratios per turn. Beside it stands ours under
autocast to bfloat16, which pays where the processor (or GPU) has it.
"""

import argparse
import copy
import importlib
import sys
import time
import types
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from ofa_nas.spaces import Architecture, Population, find_space
from ofa_nas.supernet import build_supernet

SPACE = find_space("ofa-mbv3-w1.0")
SUPPLIED = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "gdown",
)
CASES = (("one sub-network", 1, False), ("one, distilled", 1, True), ("four, distilled", 4, True))


class Anything(types.ModuleType):
    """A module that has every class: for what the package imports and a step does not need."""

    __path__ = ()

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def published_networks() -> types.ModuleType:
    for name in SUPPLIED:
        try:
            importlib.import_module(name)
        except ImportError:
            module = sys.modules[name] = Anything(name)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
    return importlib.import_module("ofa.imagenet_classification.elastic_nn.networks")


class Ours:
    def __init__(self, images: torch.Tensor, labels: torch.Tensor, half: bool) -> None:
        self.images, self.labels, self.half = images.contiguous(memory_format=torch.channels_last), labels, half
        self.model = build_supernet(SPACE).to(images.device, memory_format=torch.channels_last).train()
        largest = SPACE.decode(Population((SPACE.radices - 1).astype(np.uint8)[:, None]))[0]
        self.teacher = self.model.extract(largest).fold().to(images.device, memory_format=torch.channels_last)
        self.optimizer = sgd(self.model.parameters(), fused=True)
        for parameter in self.model.parameters():
            self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def __call__(self, architectures: Sequence[Architecture], distilled: bool) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.half):
            with torch.no_grad():
                soft = functional.softmax(self.teacher(self.images).float(), 1) if distilled else None
            for architecture in architectures:
                loss_of(self.model(self.images, architecture).float(), self.labels, soft).backward()
        self.optimizer.step()


class Published:
    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels
        choices = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
        self.model = published_networks().OFAMobileNetV3(width_mult=1.0, dropout_rate=0.0, **choices)
        self.model = self.model.to(images.device).train()
        self.teacher = copy.deepcopy(self.model).eval()
        self.optimizer = sgd(self.model.parameters())

    def __call__(self, architectures: Sequence[Architecture], distilled: bool) -> None:
        self.optimizer.zero_grad()
        with torch.no_grad():
            soft = functional.softmax(self.teacher(self.images), 1) if distilled else None
        for architecture in architectures:
            self.model.set_active_subnet(**{name: list(values) for name, values in architecture.genes.items()})
            loss_of(self.model(self.images), self.labels, soft).backward()
        self.optimizer.step()


def sgd(parameters, **more) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True, weight_decay=3e-5, **more)


def loss_of(logits: torch.Tensor, labels: torch.Tensor, soft: torch.Tensor | None) -> torch.Tensor:
    loss = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    return loss if soft is None else loss + functional.cross_entropy(logits, soft)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--px", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, options.px, options.px, device=options.device)
    labels = torch.randint(0, 1000, (options.batch,), device=options.device)
    published, ours = Published(images, labels), Ours(images, labels, False)
    print(
        f"{options.device}, batch {options.batch}, {options.px} px, {options.threads} threads, {options.repeats} turns"
    )
    for name, *case in CASES:
        slow, fast, ratio = by_turns(published, ours, *case, options)
        print(f"{name:16} published {slow:.0f} ms, ours {fast:.0f} ms: {ratio:.2f} × as fast", flush=True)
    half = Ours(images, labels, True)
    for name, *case in CASES:
        slow, fast, ratio = by_turns(ours, half, *case, options)
        print(f"{name:16} ours in fp32 {slow:.0f} ms, in bf16 {fast:.0f} ms: {ratio:.2f} × as fast", flush=True)


def by_turns(
    one: "Ours | Published", other: "Ours | Published", count: int, distilled: bool, options: argparse.Namespace
) -> tuple[float, float, float]:
    """Medians in ms, and of the turns' ratios; the first turn warms up."""
    rng = np.random.default_rng(0)
    times = []
    for _ in range(1 + options.repeats):
        chosen = SPACE.decode(SPACE.sample(count, rng, [128]))
        times.append([timed(step, chosen, distilled, options.device) for step in (one, other)])
    taken = np.array(times[1:])
    slow, fast = 1e3 * np.median(taken, axis=0)
    return slow, fast, float(np.median(taken[:, 0] / taken[:, 1]))


def timed(step: "Ours | Published", architectures: Sequence[Architecture], distilled: bool, device: str) -> float:
    started = time.perf_counter()
    step(architectures, distilled)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
