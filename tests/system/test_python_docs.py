"""Run the examples of docs/python.md as they are, and check them with mypy like a file of a user."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.real
def test_the_examples_run_in_their_order(tmp_path, monkeypatch, packages):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFA_AGENT_HOME", str(tmp_path / "agent"))
    # With a runtime that sleeps the examples take seconds, and other tests do not disturb them.
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.syspath_prepend(packages)
    (tmp_path / "targets.toml").write_text('[local]\nruntimes = ["by-macs"]\n')
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for example in EXAMPLES:
            exec(example, names)
    assert names["result"].summary["measured"] == 36
    assert "4 networks tested" in repr(names["comparison"])
    assert "excess_rms" in names["comparison"]._repr_html_()
    assert "<table" in names["table"]._repr_html_()
    assert names["latencies_ms"].shape == (1000,)
    assert names["best"].predicted_latency_ms <= float(sorted(names["latencies_ms"])[500])
    assert (tmp_path / "latency.png").stat().st_size > 0
    assert printed.getvalue().startswith("ProfileResult('local.lut': entries 36, measured 36, failed 0")


def test_the_public_interface_is_typed(tmp_path):
    """Strict mypy accepts the examples, and rejects a wrong argument."""
    user = tmp_path / "user.py"
    user.write_text("\n".join(EXAMPLES))
    assert "Success" in _mypy(user).stdout
    user.write_text('import ofa_profiler\n\nofa_profiler.profile("local", threads="two")\n')
    assert 'incompatible type "str"; expected "int"' in _mypy(user).stdout


def _mypy(file):
    config = file.with_name("mypy.ini")
    config.write_text("[mypy]\nstrict = True\nfollow_untyped_imports = True\n")
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(config), str(file)],
        capture_output=True,
        text=True,
        cwd=file.parent,
    )
