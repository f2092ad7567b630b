"""A command template: the command line of a tool, and the rules by which its output is read.

The host reads templates from TOML files, checks them, and sends them to the agent as JSON text. The agent checks them
again. A table contains the digest of its template.
"""

import hashlib
import json
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ofa_agent.operators import PRECISIONS

PREFIX = "command:"  # of the runtime: command:NAME uses the template NAME
NO_REFERENCE = "none"
PRECISION = "{precision}"  # an argument that is replaced by the arguments of the precision

PLACEHOLDERS = {
    "model": "the model file",
    "converted": "the file that the command `convert` makes from the model",
    "output": "an empty folder for the reports of the tool",
    "batch": "images per inference",
    "threads": "number of threads",
    "iterations": "number of runs",
    "seconds": "duration in seconds",
    "input": "a file with random float32 values for the input of the model",
    "input_list": "a text file that contains the path of that file",
    "precision": "the arguments of the precision; only as a whole argument",
}
_IN_CONVERT = ("model", "converted", "batch", "threads", "precision", "input", "input_list")
MODELS = ("onnx", "tflite")
PLACES = ("device", "host")
# Units of a rule, in ns. Rates have no factor: their inverse is the latency.
UNITS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
RATES = ("1/s", "images/s")
CYCLES = "cycles"  # of layers: their sum is scaled to the latency of the network
STATISTICS = ("mean", "median", "samples")
MAX_RUNS = 10**6
MAX_TIMEOUT_S = 86400.0

Arguments = Tuple[str, ...]
Pairs = Tuple[Tuple[str, str], ...]  # field or column to value


class InvalidTemplate(ValueError):
    """A template is wrong; the message is one line without the name of the template."""


class Rule(NamedTuple):
    """Where values are: exactly one of ``json`` (a path), ``csv`` (a column) and ``regex`` is set.

    ``file`` is relative to {output}; empty: what the tool prints. ``name`` is the field or column with the name of a
    layer. Only records with the values ``where`` count. Layers with the values ``between`` change the data layout.
    Layers whose names match ``skip`` do not count. ``offset`` is added to the time of each layer. ``pure`` times
    contain no overhead of the profiler.
    """

    unit: str
    file: str = ""
    json: str = ""
    csv: str = ""
    regex: str = ""
    delimiter: str = ","
    statistic: str = "mean"
    name: str = ""
    where: Pairs = ()
    between: Pairs = ()
    skip: str = ""
    offset: float = 0.0
    pure: bool = True

    def __str__(self) -> str:
        place = self.file or "its output"
        if self.json:
            return "%s: values at the JSON path %r" % (place, self.json)
        if self.csv:
            return "%s: values in the CSV column %r" % (place, self.csv)
        return "%s: a match of the regular expression %r" % (place, self.regex)


class Version(NamedTuple):
    """``run`` prints the version, which is the group of ``regex``."""

    run: Arguments
    regex: str


class Template(NamedTuple):
    """One tool. ``text`` is the template as JSON, from which it can be parsed again."""

    name: str
    text: str
    model: str
    run: Arguments
    latency: Rule
    precisions: Dict[str, Arguments]
    profile: Arguments = ()
    report: Arguments = ()
    convert: Arguments = ()
    convert_on: str = "device"
    suffix: str = ".converted"
    layers: Optional[Rule] = None
    version: Optional[Version] = None
    iterations: int = 50
    seconds: float = 1.0
    timeout_s: float = 100.0
    reference: str = NO_REFERENCE

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]

    @property
    def programs(self) -> List[str]:
        """The programs that the agent runs for this template."""
        commands = [self.run, self.profile, self.report, self.version.run if self.version else ()]
        commands += [self.convert] if self.convert_on == "device" else []
        return sorted({command[0] for command in commands if command})

    def takes(self, placeholder: str) -> bool:
        """Return whether any command contains this placeholder."""
        commands = (self.run, self.profile, self.report, self.convert)
        return any("{%s}" % placeholder in argument for command in commands for argument in command)


def parse_text(text: str) -> Template:
    """Parse the JSON text of a template. Raises InvalidTemplate."""
    try:
        values = json.loads(text)
        name = values.pop("name")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise InvalidTemplate("this is not a command template: %.60r" % text) from None
    return parse(name, values)


def parse(name: str, values: Dict[str, Any]) -> Template:
    """Parse the values of the section [command.NAME]. Raises InvalidTemplate."""
    if not isinstance(name, str) or not re.match(r"[\w.-]+\Z", name):
        raise InvalidTemplate("the name %r must consist of letters, digits, '_', '-' and '.'" % name)
    unknown = sorted(set(values) - set(_KEYS))
    if unknown:
        raise InvalidTemplate("unknown key %r; known keys: %s" % (unknown[0], ", ".join(_KEYS)))
    for key in ("run", "model", "latency"):
        if key not in values:
            raise InvalidTemplate("%s is missing; it is %s" % (key, _KEYS[key]))
    fields: Dict[str, Any] = {}
    for key in ("run", "profile", "report", "convert"):
        if key in values:
            fields[key] = _command(key, values[key])
    for key, choices in (("model", MODELS), ("convert_on", PLACES)):
        if key in values:
            fields[key] = _choice(key, values[key], choices)
    fields["precisions"] = _precisions(values.get("precisions", ["fp32"]))
    if "version" in values:
        fields["version"] = _version(values["version"])
    fields["latency"] = _rule("latency", values["latency"])
    if "layers" in values:
        fields["layers"] = _rule("layers", values["layers"])
    for key, most in (("iterations", MAX_RUNS), ("seconds", MAX_TIMEOUT_S), ("timeout", MAX_TIMEOUT_S)):
        if key in values:
            fields["timeout_s" if key == "timeout" else key] = _number(key, values[key], most)
    for key in ("reference", "suffix"):
        if key in values:
            fields[key] = _text(key, values[key])
    if not re.match(r"[\w.-]+\Z", fields.get("suffix", "_")):
        raise InvalidTemplate("suffix must consist of letters, digits, '_', '-' and '.', not %r" % fields["suffix"])
    kept = {key: value for key, value in values.items() if key != "notes"}
    template = Template(name=name, text=json.dumps(dict(kept, name=name), sort_keys=True), **fields)
    _check(template)
    return template


_KEYS = {
    "run": 'the command as a list of arguments, such as ["benchmark", "{model}"]',
    "model": "the format of the model: onnx or tflite",
    "latency": 'the rule that finds the latency, such as { regex = "median: ([\\\\d.]+) ms", unit = "ms" }',
    "profile": "the command that reports layer times, if it differs from `run`",
    "report": "a command that runs after the tool, such as a converter of its log",
    "convert": "a command that makes {converted} from {model}, once for each model",
    "convert_on": "where `convert` runs: device or host",
    "suffix": "what the name of {converted} has instead of the suffix of the model, such as .hef",
    "layers": "the rule that finds the times of layers",
    "precisions": "the precisions, as a list or with the arguments of each",
    "version": "the command that prints the version, and a regular expression",
    "iterations": "the value of {iterations}",
    "seconds": "the value of {seconds}",
    "timeout": "how long one command may take, in seconds",
    "reference": "the runtime of the reference job, or none",
    "notes": "facts for people",
}
_RULE_KEYS = (
    "file",
    "json",
    "csv",
    "regex",
    "delimiter",
    "unit",
    "statistic",
    "name",
    "where",
    "between",
    "skip",
    "offset",
    "pure",
)


def _check(template: Template) -> None:
    """Check what the parts of a template say together. Raises InvalidTemplate."""
    source = "{converted}" if template.convert else "{model}"
    for key in ("run", "profile"):
        command = getattr(template, key)
        if command and not any(source in argument for argument in command):
            raise InvalidTemplate("%s does not contain %s" % (key, source))
    if template.convert:
        if not any("{model}" in argument for argument in template.convert):
            raise InvalidTemplate("convert does not contain {model}")
        if template.suffix == "." + template.model:
            raise InvalidTemplate("suffix %r is that of {model}; use another one" % template.suffix)
        on_host = template.convert_on == "host"
        if on_host and any("{input" in argument for argument in template.convert):
            raise InvalidTemplate("convert runs on the host, which has no {input}")
        on_device = template.run + template.profile + template.report
        if on_host and any("{model}" in argument for argument in on_device):
            raise InvalidTemplate("{model} is not on the device, because convert runs on the host; use {converted}")
    elif template.takes("converted"):
        raise InvalidTemplate("{converted} is used, but there is no convert command")
    if template.profile and template.layers is None:
        raise InvalidTemplate("profile is set, but there is no rule layers")
    for rule in filter(None, (template.latency, template.layers)):
        if rule.file and not template.takes("output"):
            raise InvalidTemplate("a rule reads the file %s, but no command contains {output}" % rule.file)
    if any(template.precisions.values()) and not template.takes("precision"):
        raise InvalidTemplate("precisions has arguments, but no command contains %s" % PRECISION)


def _command(key: str, value: Any) -> Arguments:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(item, str) and item for item in value):
        raise InvalidTemplate("%s must be a list of arguments, not %r" % (key, value))
    if any("\n" in item or "\0" in item for item in value):
        raise InvalidTemplate("an argument of %s contains a line break" % key)
    allowed = {"convert": _IN_CONVERT, "version": (), "precisions": ()}.get(key, tuple(PLACEHOLDERS))
    for item in value:
        for placeholder in re.findall(r"\{(\w+)\}", item):
            if placeholder not in allowed:
                known = ", ".join("{%s}" % each for each in allowed) or "none"
                raise InvalidTemplate("%s has an unknown placeholder {%s}; available: %s" % (key, placeholder, known))
        if PRECISION in item and item != PRECISION:
            raise InvalidTemplate("%s contains %s inside %r; make it a separate argument" % (key, PRECISION, item))
    return tuple(value)


def _choice(key: str, value: Any, choices: Tuple[str, ...]) -> str:
    if value not in choices:
        raise InvalidTemplate("%s must be %s, not %r" % (key, " or ".join(choices), value))
    return str(value)


def _precisions(value: Any) -> Dict[str, Arguments]:
    if isinstance(value, (list, tuple)):
        value = dict.fromkeys(value, ())
    if not isinstance(value, dict) or not value or not set(value) <= set(PRECISIONS):
        raise InvalidTemplate("precisions must be some of %s, not %r" % (", ".join(PRECISIONS), value))
    return {precision: _command("precisions", of) if of else () for precision, of in value.items()}


def _version(value: Any) -> Version:
    if not isinstance(value, dict) or set(value) != {"run", "regex"}:
        raise InvalidTemplate('version must be { run = ["tool", "--version"], regex = "…" }, not %r' % (value,))
    return Version(_command("version", value["run"]), _pattern("version", value["regex"], 1))


def _rule(key: str, value: Any) -> Rule:
    if not isinstance(value, dict):
        raise InvalidTemplate("%s must be a table such as { regex = '…', unit = 'ms' }, not %r" % (key, value))
    unknown = sorted(set(value) - set(_RULE_KEYS))
    if unknown:
        raise InvalidTemplate("%s has an unknown key %r; known keys: %s" % (key, unknown[0], ", ".join(_RULE_KEYS)))
    found = [way for way in ("json", "csv", "regex") if value.get(way)]
    if len(found) != 1:
        raise InvalidTemplate("%s must have exactly one of json, csv and regex" % key)
    of_layers = key == "layers"
    units = [*UNITS, CYCLES] if of_layers else [*UNITS, *RATES]
    _choice("the unit of %s" % key, value.get("unit"), tuple(units))
    if "statistic" in value:
        _choice("the statistic of %s" % key, value["statistic"], STATISTICS)
    if "regex" in value:
        _pattern(key, value["regex"], 2 if of_layers else 1)
    elif of_layers and not value.get("name"):
        raise InvalidTemplate("layers has no name; it is the field or column with the name of a layer")
    if "skip" in value:
        _pattern(key, value["skip"], 0)
    if isinstance(value.get("offset", 0.0), bool) or not isinstance(value.get("offset", 0.0), (int, float)):
        raise InvalidTemplate("offset of %s must be a number" % key)
    for text in ("file", "json", "csv", "delimiter", "name"):
        if text in value:
            _text("%s of %s" % (text, key), value[text])
    if value.get("file", "").startswith("/") or ".." in value.get("file", "").split("/"):
        raise InvalidTemplate("file of %s must be inside {output}, not %r" % (key, value["file"]))
    value = dict(value)
    for pairs in ("where", "between"):
        value[pairs] = _pairs("%s of %s" % (pairs, key), value.get(pairs, {}))
    if not isinstance(value.get("pure", True), bool):
        raise InvalidTemplate("pure of %s must be true or false" % key)
    return Rule(**value)


def _pairs(key: str, value: Any) -> Pairs:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidTemplate('%s must be a table of strings, such as { status = "EXECUTED" }, not %r' % (key, value))
    return tuple(sorted(value.items()))


def _pattern(key: str, value: Any, groups: int) -> str:
    try:
        pattern = re.compile(_text("regex of %s" % key, value))
    except re.error as error:
        raise InvalidTemplate("the regular expression of %s is invalid: %s" % (key, error)) from None
    if groups == 1 and pattern.groups != 1:
        raise InvalidTemplate("the regular expression of %s needs one group, not %d" % (key, pattern.groups))
    if groups == 2 and not {"name", "time"} <= set(pattern.groupindex):
        raise InvalidTemplate("the regular expression of %s needs the groups (?P<name>…) and (?P<time>…)" % key)
    return str(value)


def _number(key: str, value: Any, most: float) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise InvalidTemplate("%s must be a number above 0 and at most %d, not %r" % (key, most, value))
    if key == "iterations" and not isinstance(value, int):
        raise InvalidTemplate("iterations must be a whole number, not %r" % value)
    return value


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidTemplate("%s must be a string, not %r" % (key, value))
    return value
