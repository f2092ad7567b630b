"""The Pythons of this machine, for agents on devices that have others than the host, and environments of their own."""

import contextlib
import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ofa_agent import operators as ops

REPOSITORY = Path(__file__).parents[1]

# The newest wheels that exist for Python 3.6, as JetPack 4.6 can install them.
OLD_PIP = "pip==21.3.1"
OLD_PACKAGES = (
    *("grpcio==1.48.2", "protobuf==3.19.6", "numpy==1.19.5", "onnxruntime==1.10.0"),
    *("typing-extensions==4.1.1", "six", "flatbuffers<3"),
)
IMPORTS = "import google.protobuf, grpc, numpy, onnxruntime"
# The converter wants an older one than our own tools.
CONVERTER_PACKAGES = ("litert-torch", "grpcio", "protobuf")
CONVERTER_LACKS = "typing_extensions"


@pytest.fixture
def without_saturation():
    """Skip the test where sums of int8 products saturate, so that outputs in int8 are far from those in fp32."""
    cpu = Path("/proc/cpuinfo").read_text()
    if "vendor_id" in cpu and "vnni" not in cpu:
        pytest.skip("int8 sums saturate in ONNX Runtime on x86 processors without VNNI (docs/measuring.md)")


@pytest.fixture
def one_thread():
    """Let PyTorch compute on one thread during the test."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def every_kind():
    """A block with every kind of operator."""
    return ops.Block(
        "every kind of operator",
        (8, 13, 13),
        (
            ops.Conv(8, 16, 3, 2),
            ops.Activation("hard_swish"),
            ops.Conv(16, 16, 5, groups=16, bias=False),
            ops.Activation("relu6"),
            ops.SqueezeExcite(16, 4),
            ops.Add(2),
            ops.Take(3),
            ops.SqueezeExcite(16, 4, "swish", "sigmoid"),
            ops.Activation("swish"),
            ops.Add(6),
            ops.Conv(16, 32, 3, groups=4),
            ops.MaxPool(3, 2),
            ops.AvgPool(3),
            ops.Activation("sigmoid"),
            ops.Activation("hard_sigmoid"),
            ops.Pool(),
            ops.Linear(32, 5),
            ops.Activation("relu"),
        ),
    )


@pytest.fixture
def call(monkeypatch, capfd):
    """Run a command in this process; return its exit code, standard output, and standard error."""

    def run(module, *words):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            module.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return run


@pytest.fixture(scope="session")
def install_sleeping():
    """Write a distribution with the runtimes of ``runtimes/sleeping.py`` into a folder, for a PYTHONPATH."""

    def install(folder):
        facts = folder / "sleeping-1.0.dist-info"
        facts.mkdir(parents=True)
        shutil.copy(REPOSITORY / "tests" / "runtimes" / "sleeping.py", folder)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeping\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(
            "[ofa_agent.runtimes]\nby-macs = sleeping:by_macs\nsteady-4ms = sleeping:steady\n"
            "[ofa_profiler.lowering]\n"
            "by-macs = ofa_profiler.lowering.onnx:lower\nsteady-4ms = ofa_profiler.lowering.onnx:lower\n"
        )
        return folder

    return install


@pytest.fixture(scope="session")
def pythons():
    """Interpreters on this machine that run, by version: on the PATH, and those of pyenv."""
    candidates = [shutil.which(f"python3.{minor}") for minor in range(6, 15)]
    candidates += sorted(map(str, Path.home().glob(".pyenv/versions/3.*/bin/python")))
    found = {}
    for path in filter(None, candidates):
        asked = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
        )
        if asked.returncode == 0:
            found.setdefault(asked.stdout.strip(), path)
    return found


@pytest.fixture(scope="session")
def python36(pythons):
    """Python 3.6 with what the agent needs; made once, then kept under build/."""
    if "3.6" not in pythons:
        pytest.skip("no Python 3.6 was found")
    return _environment("py36", pythons["3.6"], IMPORTS, (OLD_PIP,), OLD_PACKAGES)


@pytest.fixture(scope="session")
def converter():
    """A Python with litert-torch, of the versions in constraints.txt; made once, then kept under build/."""
    kept = REPOSITORY / "build" / "converter-constraints.txt"
    kept.parent.mkdir(exist_ok=True)
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    kept.write_text("".join(f"{line}\n" for line in lines if not line.startswith(CONVERTER_LACKS)))
    packages = ("--constraint", str(kept), *CONVERTER_PACKAGES)
    return _environment("converter", sys.executable, "import litert_torch, grpc, google.protobuf", packages)


def _environment(name, base, imports, *installs):
    """The Python of an environment in which ``imports`` work, each of ``installs`` given to pip if they don't yet."""
    folder = REPOSITORY / "build" / name
    python = folder / "bin" / "python"
    with _only_one(name):
        _make_environment(folder, python, base, imports, installs)
    return str(python)


@contextlib.contextmanager
def _only_one(name):
    """Let one of the test processes that run side by side make an environment; the others wait for it."""
    lock = REPOSITORY / "build" / f"{name}.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_environment(folder, python, base, imports, installs):
    if not (python.exists() and subprocess.run([python, "-c", imports], capture_output=True).returncode == 0):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([base, "-m", "venv", str(folder)], check=True)
        for packages in installs:
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            done = subprocess.run(pip, capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"{' '.join(packages)} cannot be installed: {done.stderr.strip()[-300:]}")
