"""Stands in for TFLite's ``benchmark_model`` on this machine: the model is run for real, by LiteRT's interpreter.

It takes the tool's flags, runs by its rules (``min_secs``, ``num_runs``, ``max_secs``) and prints what a version of
2025 prints, so that what is read from it are true latencies. As the tool, it warns of a flag that it does not know, and
goes on. Started as ``PYTHON benchmark_model.py --graph=…``, it runs the model some 50 ms later. An accelerator is in
truth XNNPACK, and inputs are the same number throughout.

How it deviates is told in the environment's ``OFA_STAND_IN``, or else in a file beside it, named as it and ending in
``.stand_in``: names between commas or blanks, most with ``=TEXT`` for models whose path or bytes hold that text alone:

    sleep=NS        instead of computing, sleeps NS ns for each byte of the model
    crash           dies of a signal in its first run
    hang            never ends its first run
    silent          prints nothing and exits with 0
    wrong-abi       does as a shell does with an executable for another ABI
    refuse          no accelerator takes the model
    old             prints as TensorFlow 2.5 did, and knows its flags
"""

import ctypes
import gc
import importlib.util
import math
import os
import signal
import sys
import time
import types

# By the order in which the tool logs them: what it calls each, and its kind. Those without a name are logged otherwise.
FLAGS = {
    "num_runs": ("Min num runs", int),
    "min_secs": ("Min runs duration (seconds)", float),
    "max_secs": ("Max runs duration (seconds)", float),
    "run_delay": ("Inter-run delay (seconds)", float),
    "num_threads": ("Num threads", int),
    "warmup_runs": ("Min warmup runs", int),
    "warmup_min_secs": ("Min warmup runs duration (seconds)", float),
    "graph": ("Graph", str),
    "input_layer": ("Input layers", str),
    "input_layer_shape": ("Input shapes", str),
    "input_layer_value_range": ("Input value ranges", str),
    "signature_to_run_for": ("Signature to run", str),
    "allow_fp16": ("Allow fp16", bool),
    "require_full_delegation": ("Require full delegation", bool),
    "use_gpu": ("Use gpu", bool),
    "gpu_precision_loss_allowed": ("Allow lower precision in gpu", bool),
    "use_hexagon": ("Use Hexagon", bool),
    "hexagon_lib_path": ("Hexagon lib path", str),
    "use_nnapi": ("Use NNAPI", bool),
    "nnapi_accelerator_name": ("NNAPI accelerator name", str),
    "use_xnnpack": ("Use xnnpack", bool),
    "xnnpack_force_fp16": ("xnnpack_force_fp16", bool),
}
DEFAULTS = {"num_runs": 50, "min_secs": 1.0, "max_secs": 150.0, "warmup_runs": 1, "warmup_min_secs": 0.5}
ALWAYS_LOGGED = ("graph", "signature_to_run_for")
YOUNGER_THAN_OLD = ("signature_to_run_for", "xnnpack_force_fp16")
DELEGATES = {"use_gpu": "GPU", "use_hexagon": "Hexagon", "use_nnapi": "NNAPI", "use_xnnpack": "XNNPACK"}
BOOLS = {"true": True, "1": True, "false": False, "0": False}
SEGMENTATION_FAULT = signal.SIGSEGV

# glibc fills what malloc gives with this byte: as a float 0.046, in int8 61. So tensors have values without numpy.
FILL = 0x3D
M_PERTURB = -6
BUILTIN_KERNELS, WITHOUT_XNNPACK = 1, 3


class Failed(Exception):
    """Its arguments are the lines that say so."""


class Deviations(dict):
    def of(self, name, model):
        """Whether it deviates so for this model."""
        text = self.get(name)
        return text is not None and (text in model.path or text.encode() in model.content)


class Model:
    def __init__(self, path):
        self.path = path
        try:
            with open(path, "rb") as file:
                self.content = file.read()
        except OSError:
            self.content = b""


class Log:
    def __init__(self, old):
        self._old = old

    def info(self, text="", severity="INFO"):
        print(text if self._old else f"{severity}: {text}", flush=True)

    def error(self, text):
        print(text if self._old else "ERROR: " + text, file=sys.stderr, flush=True)


def main(arguments):
    deviations = read_deviations()
    old = "old" in deviations
    log = Log(old)
    model = Model(next((each[len("--graph=") :] for each in arguments if each.startswith("--graph=")), ""))
    if deviations.of("wrong-abi", model):
        print(f"/system/bin/sh: {sys.argv[0]}: not executable: 64-bit ELF file", file=sys.stderr)
        return 126
    if deviations.of("silent", model):
        return 0
    log.info("STARTING!")
    try:
        flags, unknown = parsed(arguments, YOUNGER_THAN_OLD if old else ())
        if unknown:
            log.info("Unconsumed cmdline flags: " + " ".join(unknown), "WARN")
        benchmark(flags, model, deviations, log)
    except Failed as error:
        for line in (*error.args, "Benchmarking failed."):
            log.error(line)
        return 1
    return 0


def read_deviations():
    reported = os.environ.get("OFA_STAND_IN")
    if reported is None:
        try:
            with open(os.path.splitext(os.path.abspath(sys.argv[0]))[0] + ".stand_in", encoding="utf-8") as file:
                reported = file.read()
        except OSError:
            reported = ""
    pairs = (word.partition("=") for word in reported.replace(",", " ").split())
    return Deviations((name, text) for name, _, text in pairs)


def parsed(arguments, without):
    """The flags, and what it does not understand: unknown names, and all but the first of what is told twice."""
    flags, unknown = {}, []
    for argument in arguments:
        name, equals, text = argument.partition("=")
        name = name[2:] if name.startswith("--") else ""
        if not equals or name not in FLAGS or name in without or name in flags:
            unknown.append(argument)
            continue
        kind = FLAGS[name][1]
        try:
            flags[name] = BOOLS[text] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise Failed(f"Failed to parse flag '{name}' against argv '{argument}'") from None
    return flags, unknown


def benchmark(flags, model, deviations, log):
    log_flags(flags, log, "old" in deviations)
    if not model.path:
        raise Failed("Please specify the name of your TF Lite input file with --graph")
    start_memory, start_us = resident_mb(), now_us()
    run = loaded(flags, model, deviations, log)
    init_us, init_memory = now_us() - start_us, resident_mb()
    log.info(f"The input model file size (MB): {len(model.content) / 1e6:g}")
    log.info(f"Initialized session in {init_us / 1e3:g}ms.")
    reported = {**DEFAULTS, **flags}
    warmup = burst(run, reported["warmup_runs"], reported["warmup_min_secs"], reported, deviations, log)
    timed = burst(run, reported["num_runs"], reported["min_secs"], reported, deviations, log)
    log.info(
        f"Inference timings in us: Init: {init_us}, First inference: {warmup[0] if warmup else 0}, "
        f"Warmup (avg): {mean(warmup):g}, Inference (avg): {mean(timed):g}"
    )
    log.info(
        "Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual "
        "memory footprint of the model at runtime. Take the information at your discretion."
    )
    footprint = "Peak memory footprint" if "old" in deviations else "Memory footprint delta from the start of the tool"
    memory = (init_memory - start_memory, resident_mb() - start_memory)
    log.info(f"{footprint} (MB): init={memory[0]:g} overall={memory[1]:g}")


def log_flags(flags, log, old):
    log.info("Log parameter values verbosely: [0]")
    for name, (text, kind) in FLAGS.items():
        if name == "use_gpu" and "num_threads" in flags:
            log.info(f"#threads used for CPU inference: [{flags['num_threads']}]")
        if name in flags or (name in ALWAYS_LOGGED and not (old and name in YOUNGER_THAN_OLD)):
            value = flags.get(name, "")
            log.info(f"{text}: [{value if kind is str else format(float(value), 'g')}]")


def loaded(flags, model, deviations, log):
    """What one inference is."""
    try:
        interpreter = interpreter_of(model.path, flags)
    except ValueError as error:
        raise Failed(str(error), "Failed to load model " + model.path) from None
    log.info("Loaded model " + model.path)
    for name in (DELEGATES[flag] for flag in flags if flag in DELEGATES and flags[flag]):
        log.info(f"{name} delegate created.")
        refused = name != "XNNPACK" and deviations.of("refuse", model)
        if refused and flags.get("require_full_delegation"):
            unsupported = f"Following operations are not supported by {name} delegate:"
            raise Failed(unsupported, "CONV_2D: Operation is not supported.", "Disallowed CPU fallback detected.")
        if refused:
            applied = "Though {} delegate is explicitly applied, the model graph will not be executed by the delegate."
        else:
            applied = "Explicitly applied {} delegate, and the model graph will be completely executed by the delegate."
        log.info(applied.format(name))
    try:
        allocate(interpreter)
    except RuntimeError as error:
        raise Failed(str(error), "Failed to allocate tensors!") from None
    if deviations.of("crash", model):
        return crash
    if deviations.of("hang", model):
        return signal.pause
    if "sleep" in deviations:
        seconds = float(deviations["sleep"]) * len(model.content) / 1e9
        return lambda: time.sleep(seconds)
    return interpreter.Invoke


def interpreter_of(path, flags):
    try:
        without_numpy()
        from ai_edge_litert import _pywrap_litert_interpreter_wrapper as litert
    except ImportError as error:
        raise Failed(f"this stand-in needs ai-edge-litert: {error}") from None
    kernels = BUILTIN_KERNELS if flags.get("use_xnnpack", True) else WITHOUT_XNNPACK
    threads = max(1, flags.get("num_threads", 1))
    return litert.CreateWrapperFromFile(path, kernels, [], [], False, False, threads, False, False, False, False)


def without_numpy():
    """LiteRT's extension needs numpy's, and not the many modules that numpy's package imports for its users."""
    found = importlib.util.find_spec("numpy")
    where = os.path.dirname(found.origin) if found else ""
    if not os.path.isdir(os.path.join(where, "_core")):  # an older one, laid out otherwise
        return
    for name, path in (("numpy", where), ("numpy._core", os.path.join(where, "_core"))):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [path]


def allocate(interpreter):
    perturb = getattr(ctypes.CDLL(None), "mallopt", lambda what, value: 0)
    perturb(M_PERTURB, FILL ^ 0xFF)
    try:
        interpreter.AllocateTensors()
    finally:
        perturb(M_PERTURB, 0)


def crash():
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(SEGMENTATION_FAULT, signal.SIG_DFL)
    os.kill(os.getpid(), SEGMENTATION_FAULT)


def burst(run, least_runs, least_s, reported, deviations, log):
    """Runs by the tool's rule. How long each took, in µs."""
    log.info(
        f"Running benchmark for at least {least_runs} iterations and at least {least_s:g} seconds but "
        f"terminate if exceeding {reported['max_secs']:g} seconds."
    )
    clock, delay_s, taken = time.perf_counter_ns, reported.get("run_delay", -1.0), []
    gc.collect()
    gc.disable()
    begun = clock()
    least_end, last_start, now = begun + least_s * 1e9, begun + reported["max_secs"] * 1e9, begun
    while (len(taken) < least_runs or now < least_end) and now <= last_start:
        start = clock()
        run()
        end = clock()
        taken.append(end // 1000 - start // 1000)
        if delay_s > 0:
            time.sleep(delay_s)
        now = clock()
    gc.enable()
    log.info(statistics(taken, "old" not in deviations) + "\n")
    return taken


def statistics(taken, percentiles):
    if not taken:
        return "count=0"
    text = f"count={len(taken)}"
    if min(taken) == max(taken):
        text += f" curr={taken[-1]}" + ("(all same)" if len(taken) > 1 else "")
    else:
        text += f" first={taken[0]} curr={taken[-1]} min={min(taken)} max={max(taken)}"
        text += f" avg={mean(taken):g} std={deviation(taken)}"
    if percentiles:
        text += f" p5={percentile(taken, 5)} median={percentile(taken, 50)} p95={percentile(taken, 95)}"
    return text


def mean(taken):
    return sum(taken) / len(taken) if taken else math.nan


def deviation(taken):
    return int(math.sqrt(max(0, int(sum(each * each for each in taken) / len(taken) - mean(taken) ** 2))))


def percentile(taken, percent):
    return sorted(taken)[len(taken) * percent // 100]


def resident_mb():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


def now_us():
    return time.perf_counter_ns() // 1000


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
