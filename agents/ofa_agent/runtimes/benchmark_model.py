"""Build command lines for TFLite's ``benchmark_model`` and parse its output.

The tool prints statistics in µs, and no single samples. Counts, extremes and percentiles are exact; means have six
digits. The output depends on the version, which no version prints:

    2019        ``Average inference timings in us: Warmup: …, Init: …, Inference: …`` ends the output
    2020 on     ``Inference timings in us: Init: …, First inference: …, Warmup (avg): …, Inference (avg): …``
    2023 on     each line starts with its severity: ``INFO: ``
    2025 on     percentiles, ``p5= median= p95=`` after ``std=``

If a version does not support a flag, it prints «Unconsumed», continues, and measures something else. The same happens
if a delegate cannot be created. This module reports both as failures.

LiteRT has another tool with the same name for its CompiledModel. It prints the same statistics but has other flags.
"""

import re
import struct
from typing import Dict, Iterator, List, NamedTuple, NoReturn, Optional, Tuple, Type

from ofa_agent.runtimes import Malformed, OutOfMemory, RuntimeFailure, Unsupported

# Delegates and their names in the output of the tool; "none" uses the TFLite kernels.
DELEGATES = {"xnnpack": "XNNPACK", "none": "", "gpu": "GPU", "nnapi": "NNAPI", "hexagon": "Hexagon"}
ACCELERATORS = ("gpu", "nnapi", "hexagon")

# The nightly builds that Google publishes, by ABI (Android property ro.product.cpu.abi).
NIGHTLY = "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
PREBUILT = {
    "arm64-v8a": NIGHTLY + "android_aarch64_benchmark_model",
    "armeabi-v7a": NIGHTLY + "android_arm_benchmark_model",
}
# The machine field of an ELF header to ABI: all ABIs of Android.
MACHINES = {0xB7: "arm64-v8a", 0x28: "armeabi-v7a", 0x3E: "x86_64", 0x03: "x86", 0xF3: "riscv64"}

# Relative rounding error of means, which are printed with six digits.
ROUNDING = 1e-5
LONGEST_QUOTE = 300

_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_SEVERITY = re.compile(r"^(?:INFO|WARN|WARNING|ERROR|FATAL|VERBOSE): (?:\[[\w./-]+:\d+\] ?)?")
_RUNS = re.compile(r"^Running benchmark for at least \d+ iterations and at least ")
_STATISTICS = re.compile(
    r"^count=(?P<count>\d+)"
    r"(?: curr=(?P<same>\d+)(?:\(all same\))?|"
    r" first=(?P<first>\d+) curr=\d+ min=(?P<min>\d+) max=(?P<max>\d+) avg=(?P<mean>%s) std=(?P<std>\d+))"
    r"(?: p5=\d+ median=(?P<median>\d+) p95=\d+)?$" % _NUMBER
)
_CLOSING = (
    re.compile(
        r"^Inference timings in us: Init: (?P<init>\d+), First inference: (?P<first>\d+), "
        r"Warmup \(avg\): (?P<warmup>%s), Inference \(avg\): (?P<mean>%s)$" % (_NUMBER, _NUMBER)
    ),
    re.compile(
        r"^Average inference timings in us: Warmup: (?P<warmup>%s), Init: (?P<init>\d+), "
        r"(?:Inference|no stats): (?P<mean>%s)$" % (_NUMBER, _NUMBER)
    ),
)
_APPLIED = re.compile(r"^(?:Explicitly a|A)pplied (\w+) delegate(?:,.* (completely|partially) executed\b.*)?")

# Causes of a failure. The first pattern that matches a line decides, and the message quotes the line.
_CAUSES: Tuple[Tuple["re.Pattern[str]", Type[RuntimeFailure], str], ...] = tuple(
    (re.compile(pattern), failure, text)
    for pattern, failure, text in (
        (r"bad_alloc|[Oo]ut of memory|Cannot allocate memory|CL_(OUT_OF|MEM_OBJECT_ALLOC)", OutOfMemory, ""),
        (
            r"not executable: |[Ee]xec format error|cannot execute|syntax error: unexpected|unexpected e_machine"
            r"|bad ELF magic|(32|64)-bit instead of (32|64)-bit|position.independent executables",
            Unsupported,
            "benchmark_model was built for a different ABI than the ABI of the device",
        ),
        (
            r"CANNOT LINK EXECUTABLE|error while loading shared libraries|version `\S+' not found",
            Unsupported,
            "benchmark_model does not link on this device",
        ),
        (
            r"^\S*\b(sh|env|taskset): .*(not found|No such file or directory)",
            Unsupported,
            "benchmark_model does not exist, or was built for an ABI whose linker the device lacks",
        ),
        (
            r"Didn't find op|unresolved custom op|Op builtin_code out of range",
            Unsupported,
            "benchmark_model is older than the model",
        ),
        (
            r"Disallowed CPU fallback|Failed to apply \w+ delegate|Could not create \w+ delegate"
            r"|acceleration is unsupported|operations are not supported by",
            Unsupported,
            "the delegate does not support the model",
        ),
        (
            r"valid Flatbuffer|model identifier|schema version|Could not open|Mmap of|[Ff]ailed to load (the )?model"
            r"|Failed to initialize model loader",
            Malformed,
            "",
        ),
        (
            r"=+ BENCHMARK RESULTS =+",
            Unsupported,
            "this is benchmark_model of LiteRT; use the tool of TFLite with the same name",
        ),
        (r"failed to prepare|Failed to allocate tensors", Unsupported, "no kernel supports the model"),
        (r"Failed to parse flag", Unsupported, "this version of benchmark_model does not accept the value of a flag"),
    )
)
# Warnings after which it continues but measures something else.
_WITHOUT = "the model ran without the delegate"
_DEVIATIONS = (
    (re.compile(r"^Unconsumed cmdline flags: "), "this version of benchmark_model does not support some flags"),
    (re.compile(r"^Could not create \w+ delegate"), _WITHOUT),
    (re.compile(r"acceleration is unsupported on this platform"), _WITHOUT),
    (re.compile(r"^Though \w+ delegate is explicitly applied, .* will not be"), _WITHOUT),
)
_CRASHES = re.compile(r"Segmentation fault|Bus error|Illegal instruction|Aborted|Killed|terminating with uncaught")
_FAILED = "Benchmarking failed."


class Options(NamedTuple):
    """Options of a measurement: at least ``min_runs`` runs and ``min_s`` seconds; no run starts after ``max_s``.

    ``threads`` 0 lets the tool choose the number. ``fp16`` allows 16-bit computation with 32-bit weights. ``others``
    are further flags.
    """

    graph: str
    threads: int = 1
    delegate: str = "xnnpack"
    fp16: bool = False
    warmup_s: float = 0.5
    min_s: float = 1.0
    max_s: float = 150.0
    min_runs: int = 50
    others: Tuple[str, ...] = ()


class Report(NamedTuple):
    """The results of one run of the tool, in ns; 0 for values that its version does not report.

    ``first_ns`` is the first inference, which starts the warm-up. Statistics without ``warmup`` cover the timed runs.
    ``samples_ns`` is empty, because no version reports single runs.
    """

    count: int  # type: ignore[assignment]  # hides a method of tuples
    first_ns: int
    min_ns: int
    max_ns: int
    mean_ns: int
    std_ns: int
    median_ns: int = 0
    warmup_count: int = 0
    warmup_mean_ns: int = 0
    init_ns: int = 0
    samples_ns: Tuple[int, ...] = ()


class _Statistics(NamedTuple):
    line: str
    runs: int
    first_us: int
    min_us: int
    max_us: int
    mean_us: float
    std_us: int
    median_us: int


def command(binary: str, options: Options) -> List[str]:
    """Return the command line. Raises Unsupported for an unknown delegate, or one without the precision."""
    if options.delegate not in DELEGATES:
        raise Unsupported("benchmark_model has no delegate %r; it has %s" % (options.delegate, ", ".join(DELEGATES)))
    flags = {
        "graph": options.graph,
        "num_threads": str(options.threads or -1),
        "warmup_runs": "1",
        "warmup_min_secs": "%g" % options.warmup_s,
        "num_runs": str(options.min_runs),
        "min_secs": "%g" % options.min_s,
        "max_secs": "%g" % options.max_s,
    }
    flags.update(_delegate_flags(options))
    return [binary] + ["--%s=%s" % flag for flag in flags.items()] + list(options.others)


def _delegate_flags(options: Options) -> Dict[str, str]:
    if options.fp16 and options.delegate in ("none", "hexagon"):
        raise Unsupported("benchmark_model computes in fp16 only with the delegates xnnpack, gpu and nnapi")
    fp16 = "true" if options.fp16 else "false"
    if options.delegate in ("xnnpack", "none"):  # always explicit: the default depends on the version
        forced = {"xnnpack_force_fp16": "true"} if options.fp16 and options.delegate == "xnnpack" else {}
        return dict(forced, use_xnnpack="true" if options.delegate == "xnnpack" else "false")
    flags = {"use_" + options.delegate: "true", "require_full_delegation": "true"}
    if options.delegate == "gpu":
        flags["gpu_precision_loss_allowed"] = fp16
    if options.delegate == "nnapi":
        flags["allow_fp16"] = fp16
    return flags


def abi(head: bytes) -> str:
    """Return the ABI of an executable from its first 20 bytes; empty if it is not an ELF file of a known machine."""
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[5] != 1:
        return ""
    return MACHINES.get(struct.unpack_from("<H", head, 18)[0], "")


def parse(stdout: str, stderr: str, exit_code: int, delegate: str = "") -> Report:
    """Parse the output of the tool. With ``delegate``, one of DELEGATES, check that this delegate ran the model.

    Raises Unsupported, OutOfMemory, Malformed, and RuntimeFailure for a crash. The message quotes the decisive line.
    """
    lines = [_SEVERITY.sub("", line.strip()) for line in stdout.splitlines() + stderr.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise RuntimeFailure("benchmark_model printed nothing and %s" % _ended(exit_code))
    if exit_code or _FAILED in lines or not any(map(_closing, lines)):
        _refuse(lines, exit_code)
    for sign, text in _DEVIATIONS:
        for line in filter(sign.search, lines):
            raise Unsupported(_quoted(text, line))
    _check_delegate(lines, delegate)
    return _report(lines)


def _refuse(lines: List[str], exit_code: int) -> NoReturn:
    for sign, failure, text in _CAUSES:
        for at, line in enumerate(lines):
            if sign.search(line):  # a line that ends with a colon continues in the next line
                raise failure(_quoted(text, " ".join(lines[at : at + 2]) if line.endswith(":") else line))
    crashed = [line for line in lines if _CRASHES.search(line)]
    if crashed or exit_code >= 128 or exit_code < 0:
        raise RuntimeFailure(_quoted("benchmark_model crashed (%s)" % _ended(exit_code), (crashed or lines)[-1]))
    remaining = [line for line in lines if line != _FAILED] or lines
    if exit_code or _FAILED in lines:
        raise RuntimeFailure(_quoted("benchmark_model failed (%s)" % _ended(exit_code), remaining[-1]))
    raise Malformed(_quoted("benchmark_model's output ends without «Inference timings in us: …»", lines[-1]))


def _check_delegate(lines: List[str], delegate: str) -> None:
    applied = {found.group(1): found for found in map(_APPLIED.search, lines) if found}
    for name in (DELEGATES[each] for each in ACCELERATORS):
        if name in applied and applied[name].group(2) == "partially":
            raise Unsupported(_quoted("part of the model ran on the CPU", applied[name].group(0)))
    name = DELEGATES[delegate] if delegate else ""
    if name and name not in applied:
        raise Unsupported("benchmark_model did not report that the %s delegate ran the model" % name)


def _report(lines: List[str]) -> Report:
    closings = [found.groupdict() for found in map(_closing, lines) if found]
    closing = closings[0]
    if any(other != closing for other in closings):
        raise Malformed("benchmark_model printed two different summaries: %s and %s" % (closing, closings[-1]))
    bursts = list(_bursts(lines))
    if len(bursts) != 2:
        raise Malformed("benchmark_model reported %d bursts instead of a warm-up and the timed runs" % len(bursts))
    warmup, timed = bursts
    for reported, burst in ((closing["warmup"], warmup), (closing["mean"], timed)):
        if not _near(float(reported), burst.mean_us):
            raise Malformed(_quoted("the summary has a mean of %s µs, the statistics do not" % reported, burst.line))
    first = closing.get("first")
    if first not in (None, str(warmup.first_us)):
        raise Malformed(_quoted("the summary has a first run of %s µs, the statistics do not" % first, warmup.line))
    return Report(
        count=timed.runs,
        first_ns=warmup.first_us * 1000,
        min_ns=timed.min_us * 1000,
        max_ns=timed.max_us * 1000,
        mean_ns=round(timed.mean_us * 1000),
        std_ns=timed.std_us * 1000,
        median_ns=timed.median_us * 1000,
        warmup_count=warmup.runs,
        warmup_mean_ns=round(warmup.mean_us * 1000),
        init_ns=int(closing["init"]) * 1000,
    )


def _bursts(lines: List[str]) -> Iterator[_Statistics]:
    """Yield the statistics after each announcement of runs; the profiler prints similar lines elsewhere."""
    announced = False
    for line in lines:
        if _RUNS.search(line):
            announced = True
        elif line.startswith("count=") and announced:
            announced = False
            yield _statistics(line)
        elif line.startswith("count="):
            raise Malformed(_quoted("statistics of runs that benchmark_model did not announce", line))


def _statistics(line: str) -> _Statistics:
    found = _STATISTICS.match(line)
    if not found or not int(found.group("count")):
        raise Malformed(_quoted("invalid statistics", line))
    reported = found.groupdict()
    same = reported["same"]  # one run, or several of the same length
    low, high = int(same or reported["min"]), int(same or reported["max"])
    mean = float(same or reported["mean"])
    median = int(reported["median"] or 0)
    if not mean:
        raise Malformed(_quoted("runs of 0 µs are too short for the clock of benchmark_model", line))
    if not low * (1 - ROUNDING) <= mean <= high * (1 + ROUNDING) or (reported["median"] and not low <= median <= high):
        raise Malformed(_quoted("inconsistent statistics", line))
    return _Statistics(
        line=line,
        runs=int(reported["count"]),
        first_us=int(same or reported["first"]),
        min_us=low,
        max_us=high,
        mean_us=mean,
        std_us=int(reported["std"] or 0),
        median_us=median or int(same or 0),
    )


def _closing(line: str) -> "Optional[re.Match[str]]":
    return next(filter(None, (form.match(line) for form in _CLOSING)), None)


def _near(left: float, right: float) -> bool:
    return abs(left - right) <= ROUNDING * max(left, right)


def _ended(exit_code: int) -> str:
    signal = -exit_code if exit_code < 0 else exit_code - 128
    return "ended by signal %d" % signal if 0 < signal < 65 else "exited with %d" % exit_code


def _quoted(text: str, line: str) -> str:
    shown = line if len(line) <= LONGEST_QUOTE else line[:LONGEST_QUOTE] + "…"
    return "%s: %s" % (text, shown) if text else shown
