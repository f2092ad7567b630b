"""The training run, from top to bottom: stages, epochs, steps, checkpoints, logs."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa_nas.cli import duration
from ofa_nas.spaces.recorded import label
from ofa_nas.supernet import OneNetwork, Supernet, build_supernet, save_supernet
from ofa_nas.training.cost import RAPL, Cost, EnergyMeter, cost_of
from ofa_nas.training.data import Batch, Images, loader, open_data, training_batches
from ofa_nas.training.evaluation import accuracy, statistics_batches
from ofa_nas.training.initial_weights import Initial, digest_of, start_from
from ofa_nas.training.learner import Learner
from ofa_nas.training.logs import END, Evaluated, Log
from ofa_nas.training.options import Options
from ofa_nas.training.plan import INDEPENDENT, Plan, work_of_epoch
from ofa_nas.training.processes import Processes
from ofa_nas.training.recipes import REFERENCE_BATCH, Stage
from ofa_nas.training.schedule import learning_rate
from ofa_nas.training.state import Progress, not_of_this_run, read_state, write_state
from ofa_tables.errors import OfaError
from ofa_tables.words import counted

STATE, SUPERNET, NETWORK = "state.pth", "supernet.pth", "network.pth"
GENES = 0x6E65  # sub-networks are drawn from a random stream separate from the images'


@dataclass(frozen=True)
class Trained:
    """``held_out`` and ``test`` are the final accuracies of the followed sub-networks on these images; ``loss`` is the
    loss of the last epoch, ``broken`` the number of images that could not be decoded.
    """

    path: str
    epochs: int
    loss: float
    images_per_second: float
    held_out: list[Evaluated]
    test: list[Evaluated]
    broken: int
    cost: Cost


class Trainer:
    """Raises UsageError and OfaError before training if the options contradict each other."""

    def __init__(self, options: Options, processes: Processes) -> None:
        self.options, self.processes = options, processes
        self.plan = Plan.of(options)
        self.data = open_data(options.data).with_fewer(options.train_images)
        self.broken = self.data.broken()
        self.log: Log | None = None
        self.initial: Initial | None = None
        self.progress = Progress()
        torch.manual_seed(options.seed)
        space, classes = self.plan.space, len(self.data.classes)
        if options.recipe == INDEPENDENT:
            model: Supernet = OneNetwork(space, self.plan.followed[0], classes, options.dropout)
        else:
            model = build_supernet(space, classes, options.dropout)
        self.learner = Learner(model, options, processes)

    def run(self, resume: bool) -> Trained:
        begun = resume and self.processes.from_first((self.options.out / STATE).exists())
        if begun:
            self._go_on()
        elif self.options.init is not None:
            self.initial = start_from(self.options.init, self.learner.model, self.data.classes)
            self.progress.sorts = not self.initial.trained_narrow
        if self.processes.is_first:
            self.options.out.mkdir(parents=True, exist_ok=True)
            self.log = Log(self.options.out, self._number(self.progress.stage))
        if begun:
            self._say(self._where())
        elif resume:
            self._say(f"{self.options.out} holds no checkpoint yet; this run begins there")
        notes = self.initial.notes if self.initial else ()
        for note in (*self.data.notes, *notes, self.plan.note_on_table(), self.plan.left_out()):
            self._say(note)
        self._clock = _Clock(self.progress, self.processes)
        for at in range(self.progress.stage, len(self.plan.stages)):
            self._train_stage(at)
        return self._finish()

    def _train_stage(self, at: int) -> None:
        stage = self.plan.stages[at]
        if self.progress.epoch == self.progress.batch == 0:
            self._enter(at, stage)
        while self.progress.epoch < stage.epochs:
            self._train_epoch(at, stage)
            self.progress = replace(self.progress, epoch=self.progress.epoch + 1, batch=0, epoch_losses=[])
            self._write()
        if at + 1 < len(self.plan.stages):
            seconds = self._clock.seconds() if at == 0 else self.progress.first_stage_s
            self.progress = replace(self.progress, stage=at + 1, epoch=0, first_stage_s=seconds)

    def _enter(self, at: int, stage: Stage) -> None:
        """Prepare a stage; only here are weights moved."""
        if stage.distilled and self.learner.teacher is None:
            self._take_teacher(at)
        if stage.sorts and self.progress.sorts:
            self.learner.model.sort_channels(self.plan.ratios_before(at))
        self.learner.begin()
        self._say(f"stage {at + 1} of {len(self.plan.stages)}: {stage.name}, {counted(stage.epochs, 'epoch')}")

    def _take_teacher(self, at: int) -> None:
        """The largest network as it is now, unless its classifier is not trained yet."""
        if at == 0 and self.initial is not None and self.initial.has_new_classifier:
            self._say(
                "this stage has no teacher, because the classifier is new; --first-stage 1 trains a teacher first"
            )
            return
        self.learner.learn_from(self.plan.largest, self._seen_at_each_size())

    def _train_epoch(self, at: int, stage: Stage) -> None:
        options, progress = self.options, self.progress
        number = self._number(at)
        in_epoch = max(1, len(self.data.train) // options.batch_size)
        steps, warmup = stage.epochs * in_epoch, round(stage.warmup_epochs * in_epoch)
        peak = stage.rate * options.rate_scale * options.batch_size / REFERENCE_BATCH
        sampler = self.plan.sampler(stage, (options.seed, at, progress.epoch))
        started = saved = time.monotonic()
        before = len(progress.epoch_losses)
        rate = learning_rate(max(0, progress.epoch * in_epoch + progress.batch - 1), steps, warmup, peak)
        for batch_at, batch in self._batches(number):
            step = progress.epoch * in_epoch + batch_at
            rate = learning_rate(step, steps, warmup, peak)
            rng = np.random.default_rng((options.seed, at, step, GENES))
            chosen = sampler.draw(stage.sub_networks, batch.images.shape[-1], rng)
            loss = self.learner.step(batch, chosen, rate, (at, step))
            if not math.isfinite(loss):
                where = f"in step {step} of stage {stage.name!r}, at a learning rate of {rate:.4g}"
                raise self._diverged(f"the loss became {loss} {where}")
            self.broken.add(batch.broken)
            progress.epoch_losses.append(loss)
            progress.batch = batch_at + 1
            size = len(batch.labels) * self.processes.world
            progress.images += size
            trained = (len(progress.epoch_losses) - before) * size
            progress.images_per_second = trained / max(1e-9, time.monotonic() - started)
            self._report(at, stage, (step + 1) / steps)
            if self.processes.any(time.monotonic() - saved > 60 * options.checkpoint_minutes):
                saved = time.monotonic()
                self._write()
        progress.loss = float(np.mean(progress.epoch_losses))
        if self.log is not None:
            self.log.epoch(number, stage.name, progress.epoch, progress.loss, rate, progress.images_per_second)
        every = max(1, self.plan.epochs // max(1, options.evaluations))
        if options.evaluations and (number + 1) % every == 0 and number + 1 < self.plan.epochs:
            found = self._evaluate(self.data.held_out, options.evaluate_images)
            if self.log is not None:
                self.log.evaluations(number, stage.name, found)

    def _number(self, at: int) -> int:
        """The number of the next epoch, counted over all stages."""
        return sum(before.epochs for before in self.plan.stages[:at]) + self.progress.epoch

    def _batches(self, epoch: int) -> Iterator[tuple[int, Batch]]:
        draws = training_batches(
            self.data.train,
            seed=self.options.seed,
            epoch=epoch,
            batch_size=self.options.batch_size,
            resolutions_px=self.plan.resolutions_px,
            rank=self.processes.rank,
            world=self.processes.world,
            first=self.progress.batch,
        )
        return enumerate(loader(self.data.train, draws, self.options.workers), start=self.progress.batch)

    def _seen_at_each_size(self) -> Iterator[tuple[int, list[Tensor]]]:
        """Augmented training images of every size, as the teacher sees them."""
        options = self.options
        for px in self.plan.resolutions_px:
            count, workers = options.statistics_images, options.workers
            yield px, statistics_batches(self.data.train, count, px, 0, self.processes, workers, augmented=True)

    def _evaluate(self, images: Images, limit: int | None = None) -> list[Evaluated]:
        options, followed = self.options, self.plan.followed
        images = images if limit is None or limit >= len(images) else images.subset(range(limit))
        found = []
        for at, (architecture, predicted_ms) in enumerate(zip(followed, self.plan.predicted_ms, strict=True)):
            statistics = statistics_batches(
                self.data.train,
                options.statistics_images,
                architecture.resolution_px,
                0,
                self.processes,
                options.workers,
            )
            model, workers = self.learner.model, options.workers
            top1 = accuracy(model, architecture, images, statistics, self.processes, workers, self.broken)
            label = f"{at + 1} of {len(followed)}"
            found.append(Evaluated(label, architecture, predicted_ms, top1, self.plan.simulated))
        return found

    def _finish(self) -> Trained:
        plan, progress, clock = self.plan, self.progress, self._clock
        self.learner.take_average()
        path = self._save()
        held_out, test = self._evaluate(self.data.held_out), self._evaluate(self.data.test)
        if self.log is not None:
            self.log.evaluations(plan.epochs - 1, END, held_out)
        one_network_s = None if plan.skipped else progress.first_stage_s
        devices, networks = self.processes.world, len(plan.followed)
        energy_of = clock.energy_of()
        cost = cost_of(clock.seconds(), clock.joules(), devices, networks, one_network_s, energy_of)
        broken = len(self.broken.of_all(self.processes))
        return Trained(path, plan.epochs, progress.loss, progress.images_per_second, held_out, test, broken, cost)

    def _save(self) -> str:
        """Save what was trained, for other commands."""
        model = self.learner.model
        path = self.options.out / (NETWORK if isinstance(model, OneNetwork) else SUPERNET)
        if self.processes.is_first:
            reported = {"data": self.options.data, "recipe": self.options.recipe}
            normalisation = self.data.train.normalisation._asdict()
            save_supernet(path, model, classes=list(self.data.classes), normalisation=normalisation, **reported)
        return str(path)

    def _write(self) -> None:
        """Write the state; every process must call this."""
        if not self.learner.is_finite():
            raise self._diverged(f"weights became infinite in stage {self.plan.stages[self.progress.stage].name!r}")
        progress = self.progress
        progress.seconds, progress.joules = self._clock.seconds(), self._clock.joules()
        progress.broken = self.broken.of_all(self.processes)
        if self.processes.is_first:
            write_state(self.options.out / STATE, self._settings(), progress, self.learner.tensors())
        self.processes.wait()

    def _settings(self) -> dict[str, Any]:
        """The settings that determine the weights: for files their content, for devices their kind."""
        alone = self.plan.followed[0].to_json() if self.options.recipe == INDEPENDENT else None
        contents = {"data": self.data.train.digest(), "table": self.plan.table_digest(), "architecture": alone}
        contents |= {"init": digest_of(self.options.init), "space": label(self.plan.space)}
        return self.options.settings() | contents | {"device": self.processes.device.type}

    def _go_on(self) -> None:
        self.progress, tensors = read_state(self.options.out / STATE, self._settings())
        self.broken.add(self.progress.broken)
        try:
            self.learner.load(tensors, self.plan.largest)
            stage = self.plan.stages[self.progress.stage]
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise not_of_this_run(self.options.out / STATE, error) from None
        if self.progress.epoch == stage.epochs and self.progress.stage + 1 < len(self.plan.stages):
            seconds = self.progress.seconds if self.progress.stage == 0 else self.progress.first_stage_s
            self.progress = replace(self.progress, stage=self.progress.stage + 1, epoch=0, first_stage_s=seconds)

    def _where(self) -> str:
        progress, stages = self.progress, self.plan.stages
        done = self._number(progress.stage)
        inside = f"{counted(progress.batch, 'batch', 'batches')} of " if progress.batch else ""
        return (
            f"resuming after {inside}epoch {done + bool(inside)} of {self.plan.epochs}, "
            f"stage {progress.stage + 1} of {len(stages)} ({stages[progress.stage].name})"
        )

    def _diverged(self, what: str) -> OfaError:
        path = self.options.out / STATE
        kept = f"the last good checkpoint, {path}, is kept" if path.exists() else "there is no checkpoint yet"
        return OfaError(
            f"{what}; {kept}: start over with another --out and a smaller --rate-scale, or in --precision fp32"
        )

    def _report(self, at: int, stage: Stage, share: float) -> None:
        if self.log is None:
            return
        done = self.plan.work(self.plan.stages[:at]) + work_of_epoch(stage) * stage.epochs * share
        left_s = self._clock.seconds() / done * (self.plan.work() - done)
        progress = self.progress
        self.log.progress(
            f"stage {at + 1} of {len(self.plan.stages)}, {stage.name}: epoch {progress.epoch + 1} of {stage.epochs}, "
            f"loss {np.mean(progress.epoch_losses[-50:]):.4f}, {progress.images_per_second:,.0f} images/s, "
            f"{duration(left_s)} left"
        )

    def _say(self, text: str | None) -> None:
        if self.log is not None and text:
            self.log.say(text)


class _Clock:
    """Time of all sessions; energy of all sessions and processes."""

    def __init__(self, before: Progress, processes: Processes) -> None:
        self._started = time.monotonic()
        self._seconds, self._joules = before.seconds, before.joules
        if not before.seconds:
            self._joules = self._joules or 0.0
        self._processes = processes
        # The CPU packages belong to the host, so one process per host reads them.
        self._meter = EnergyMeter(processes.device, RAPL if processes.is_first_of_host else None)

    def seconds(self) -> float:
        return self._seconds + time.monotonic() - self._started

    def joules(self) -> float | None:
        """The energy in J; None if any meter or an earlier session lacks it. Every process must call this."""
        own = self._meter()
        if own is None and self._meters():
            own = math.nan
        found = [joules for joules in self._processes.gathered(own) if joules is not None]
        if not found or self._joules is None or any(map(math.isnan, found)):
            return None
        return self._joules + sum(found)

    def energy_of(self) -> str:
        """The meters of all processes; every process must call this."""
        return "; ".join(dict.fromkeys(filter(None, self._processes.gathered(self._meters()))))

    def _meters(self) -> str:
        return getattr(self._meter, "of", "")
