"""Run a command line tool that times a model, as its template says (``ofa_agent/commands/template.py``).

A burst is one run of the tool. No shell is involved: every command is a list of arguments.
"""

import os
import re
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ofa_agent.commands import output
from ofa_agent.commands.layers import Kernel, owners_of
from ofa_agent.commands.place import Place, Ran
from ofa_agent.commands.template import CYCLES, PRECISION, InvalidTemplate, Rule, Template, parse_text
from ofa_agent.inputs import ModelInput, random_values
from ofa_agent.measuring.parts import Profiled
from ofa_agent.measuring.timing import Burst, Statistics
from ofa_agent.operators import Block
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import (
    Layer,
    Loaded,
    LoadedLayers,
    LoadedProfiled,
    Malformed,
    OutOfMemory,
    RuntimeFailure,
    SelfTimed,
    Unsupported,
)

INPUT_SEED = 1
NO_MEMORY = re.compile(r"bad_alloc|out of memory|cannot allocate memory", re.IGNORECASE)


class TimedOut(RuntimeFailure):
    status = "timed-out"


class CommandRuntime:
    """The runtime of one template; ``place`` is where its tool runs."""

    def __init__(self, text: str, place: Optional[Place] = None) -> None:
        self._place = place or Place()
        try:
            self._template = parse_text(text)
        except InvalidTemplate as error:
            raise Unsupported(str(error)) from None
        if self._template.layers is not None:
            self.load_profiled = self._load_profiled
            self.load_file_layers = self._load_file_layers

    def version(self) -> str:
        """Return the version of the template; the agent asks the tool for its own version once."""
        return "template %s" % self._template.digest

    def load(self, block: Block, job: Any, model_path: str) -> Loaded:
        return _CommandLoaded(self._template, self._place, _inputs(block, job), job.settings, model_path)

    def _load_profiled(self, block: Block, job: Any, model_path: str) -> LoadedProfiled:
        return _CommandProfiled(self._template, self._place, block, job, model_path)

    def load_file(self, job: Any, model_path: str) -> Loaded:
        return _CommandLoaded(self._template, self._place, wire.job_inputs(job), job.settings, model_path)

    def _load_file_layers(self, job: Any, model_path: str) -> LoadedLayers:
        return _CommandLayers(self._template, self._place, wire.job_inputs(job), job.settings, model_path)


class _CommandLoaded(SelfTimed):
    """One run of the tool for each burst. ``batch`` is the first size of the first input."""

    def __init__(
        self, template: Template, place: Place, inputs: Sequence[ModelInput], settings: Any, model_path: str
    ) -> None:
        _check_settings(template, settings, model_path)
        if len(inputs) > 1 and (template.takes("input") or template.takes("input_list")):
            raise Unsupported("[command.%s] gives one input; the model has %d" % (template.name, len(inputs)))
        self._template, self._place, self._inputs, self._settings = template, place, inputs, settings
        self._batch = inputs[0].shape[0] if inputs and inputs[0].shape else 1
        self._folder = place.make_folder()
        try:
            self._values = self._placeholders(model_path)
            if template.convert and template.convert_on == "device":
                self._values["converted"] = self._converted(model_path)
        except BaseException:
            self.close()
            raise

    def burst(self) -> Burst:
        """Run the tool once and return the latencies that it reports. Raises RuntimeFailure."""
        return self._run(self._template.run, profiled=False)

    def close(self) -> None:
        self._place.remove_folder(self._folder)

    def _run(self, command: Sequence[str], profiled: bool) -> Burst:
        template, start = self._template, time.perf_counter()
        folder = self._values["output"] = os.path.join(self._folder, "output")
        self._place.make_subfolder(folder)
        printed = self._execute(command).text
        if template.report:
            printed += "\n" + self._execute(template.report).text
        latency = self._read(template.latency, folder, printed, output.read_latency)
        if profiled:
            assert template.layers is not None
            self._read_layers(template.layers, folder, printed)
        self._place.remove_folder(folder)
        elapsed_ns = int((time.perf_counter() - start) * 1e9)
        if latency.samples_ns:
            timed_ns = min(elapsed_ns, sum(latency.samples_ns))
            return Burst(list(latency.samples_ns), 0, 0, timed_ns, True, True)
        known_ns = latency.median_ns or latency.mean_ns
        count = template.iterations if template.takes("iterations") else max(1, int(template.seconds * 1e9 / known_ns))
        statistics = Statistics(count, latency.median_ns, latency.mean_ns or latency.median_ns)
        return Burst([], 0, 0, min(elapsed_ns, count * known_ns), True, True, statistics)

    def _read(self, rule: Rule, folder: str, printed: str, read: Any) -> Any:
        """Read a report, or what the tool printed. Raises Unsupported with the rule and the last line."""
        text: Optional[str] = printed
        if rule.file:
            text = self._place.read(os.path.join(folder, rule.file))
        if text is None:
            wrote = ", ".join(self._place.list(folder)) or "no file"
            raise self._failure(Unsupported, "did not write %s but %s" % (rule.file, wrote), printed)
        try:
            return read(rule, text, self._batch) if read is output.read_latency else read(rule, text)
        except output.NoMatch as found:
            raise self._failure(Unsupported, "expected in %s, found %s" % (rule, found), printed) from None

    def _read_layers(self, rule: Rule, folder: str, printed: str) -> None:
        raise NotImplementedError

    def _execute(self, command: Sequence[str]) -> Ran:
        """Run one command of the template. Raises RuntimeFailure if it does not succeed."""
        arguments, name = self._filled(command), self._template.name
        try:
            ran = self._place.run(arguments, self._template.timeout_s, self._folder)
        except FileNotFoundError:
            advice = "install it, or write its full path"
            raise Unsupported(
                "[command.%s] %s does not exist on this device; %s" % (name, arguments[0], advice)
            ) from None
        except OSError as error:
            raise Unsupported("[command.%s] %s does not run: %s" % (name, arguments[0], error.strerror)) from None
        if ran.code is None:
            what = "did not end within %g s (timeout) and was ended" % self._template.timeout_s
            raise self._failure(TimedOut, "%s %s" % (arguments[0], what), ran.text)
        if ran.code:
            failure = OutOfMemory if NO_MEMORY.search(ran.text) else RuntimeFailure
            raise self._failure(failure, "%s %s" % (arguments[0], _ended(ran.code)), ran.text)
        return ran

    def _failure(self, kind: Any, what: str, printed: str) -> RuntimeFailure:
        """Return a failure whose message is one line: the template, what happened, and the last line of the output."""
        return kind("[command.%s] %s; its last line: %s" % (self._template.name, what, output.last_line(printed)))

    def _filled(self, command: Sequence[str]) -> List[str]:
        """Return the arguments with the values of the placeholders."""
        arguments: List[str] = []
        for argument in command:
            if argument == PRECISION:
                arguments += self._template.precisions[self._settings.precision]
            else:
                arguments.append(re.sub(r"\{(\w+)\}", lambda found: self._values[found.group(1)], argument))
        return arguments

    def _placeholders(self, model_path: str) -> Dict[str, str]:
        template, settings = self._template, self._settings
        # Tools recognise the format by the suffix.
        model = os.path.join(self._folder, "model." + template.model)
        self._place.link(model, model_path)
        values = {"model": model, "batch": str(self._batch), "threads": str(settings.threads)}
        values.update(iterations=str(template.iterations), seconds="%g" % template.seconds)
        if template.convert and template.convert_on == "host":  # the model that arrived is the converted one
            values["converted"] = os.path.join(self._folder, "model" + template.suffix)
            self._place.link(values["converted"], model_path)
        if template.takes("input") or template.takes("input_list"):
            values["input"] = os.path.join(self._folder, "input.raw")
            values["input_list"] = os.path.join(self._folder, "input_list.txt")
            self._place.write(values["input"], random_values(self._inputs[0], INPUT_SEED).tobytes())
            self._place.write(values["input_list"], (values["input"] + "\n").encode())
        return values

    def _converted(self, model_path: str) -> str:
        """Return the converted model. It is made once for each model and template, and kept."""
        template, settings, place = self._template, self._settings, self._place
        model = (os.path.basename(model_path), template.digest, settings.precision, self._batch, settings.threads)
        kept = os.path.join(place.cache_folder(model_path), "-".join(map(str, model)) + template.suffix)
        if not place.is_there(kept):
            made = self._values["converted"] = os.path.join(self._folder, "model" + template.suffix)
            ran = self._execute(template.convert)
            if not place.is_there(made):
                raise self._failure(Unsupported, "convert did not write {converted}", ran.text)
            place.move(made, kept)
        return kept


class _ReadsLayers(_CommandLoaded):
    """The first burst reports the times of layers."""

    _layers: Optional[List[output.Layer]] = None

    def burst(self) -> Burst:
        if self._layers is not None:
            return super().burst()
        return self._run(self._template.profile or self._template.run, profiled=True)

    def _read_layers(self, rule: Rule, folder: str, printed: str) -> None:
        self._layers = self._read(rule, folder, printed, output.read_layers)

    @property
    def _rule(self) -> Rule:
        assert self._template.layers is not None
        return self._template.layers


class _CommandProfiled(_ReadsLayers, LoadedProfiled):
    """A network of blocks. Without a command ``profile``, the same run times the network."""

    def __init__(self, template: Template, place: Place, block: Block, job: Any, model_path: str) -> None:
        super().__init__(template, place, _inputs(block, job), job.settings, model_path)
        self._block = block

    @property
    def in_one_run(self) -> bool:  # type: ignore[override]
        return not self._template.profile

    def operator_times(self) -> Profiled:
        assert self._layers is not None
        layers, operators = self._layers, len(self._block.operators)
        owners = owners_of([Kernel(layer.name, "" if layer.between else layer.name) for layer in layers], operators)
        if max(owners) >= operators:
            raise Malformed(
                "[command.%s] a layer is named operator%d, but %s has %d operators"
                % (self._template.name, max(owners), self._block.key, operators)
            )
        times = np.array([layer.time for layer in layers])
        owned = np.bincount(owners, weights=times, minlength=operators)
        return Profiled(owned[None, :], np.bincount(owners, minlength=operators), pure=self._rule.pure)


class _CommandLayers(_ReadsLayers, LoadedLayers):
    """A model file. Layers have the names that the tool reports."""

    def layer_times(self) -> Tuple[List[Layer], Profiled]:
        assert self._layers is not None
        took = np.array([[layer.time for layer in self._layers]], dtype=np.float64)
        if self._rule.unit == CYCLES:  # only their ratios count: more than any latency, so that they are scaled to it
            took *= 1e12 / max(1.0, float(took.sum()))
        layers = [Layer(layer.name, "") for layer in self._layers]
        return layers, Profiled(took, np.ones(len(layers), dtype=int), pure=self._rule.pure)


def _inputs(block: Block, job: Any) -> List[ModelInput]:
    return [ModelInput("x", "float32", (job.settings.batch,) + block.input_shape)]


def _ended(code: int) -> str:
    return "was ended by signal %d" % -code if code < 0 else "exited with code %d" % code


def _check_settings(template: Template, settings: Any, model_path: str) -> None:
    if settings.precision not in template.precisions:
        has = ", ".join(template.precisions)
        raise Unsupported("[command.%s] has no precision %s; it has %s" % (template.name, settings.precision, has))
    if settings.threads != 1 and not template.takes("threads"):
        raise Unsupported("[command.%s] has no {threads}; use --threads 1" % template.name)
    if not model_path:
        raise Malformed("runtime %s requires a model, but the job has no model_id" % settings.runtime)
