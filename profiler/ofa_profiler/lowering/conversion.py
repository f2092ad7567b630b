"""Convert models on the host with the command of a template, for tools that need their own format.

A converted model is kept in the user's cache, because a conversion may take minutes.
"""

import re
import subprocess
import tempfile
from pathlib import Path

import platformdirs

from ofa_agent.commands.output import last_line
from ofa_agent.commands.template import PRECISION, Template
from ofa_agent.protocol import messages as wire
from ofa_tables.errors import DeviceError


def converted(template: Template, chunks: list[wire.ModelChunk], batch: int, precision: str) -> list[wire.ModelChunk]:
    """Return the converted model as one literal. Raises DeviceError if the command fails."""
    name = f"{wire.model_id_of(chunks)}-{template.digest}-{precision}-{batch}{template.suffix}"
    kept = platformdirs.user_cache_path("ofa-profile") / "converted" / name
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            made = _convert(template, Path(folder), wire.model_bytes(chunks), batch, precision)
            made.replace(kept)
    return [kept.read_bytes()]


def _convert(template: Template, folder: Path, content: bytes, batch: int, precision: str) -> Path:
    model, made = folder / f"model.{template.model}", folder / f"model{template.suffix}"
    model.write_bytes(content)
    values = {"model": str(model), "converted": str(made), "batch": str(batch), "threads": "1"}
    arguments: list[str] = []
    for argument in template.convert:
        if argument == PRECISION:
            arguments += template.precisions.get(precision, ())
        else:
            arguments.append(re.sub(r"\{(\w+)\}", lambda found: values.get(found.group(1), found.group(0)), argument))
    what = f"[command.{template.name}] convert on this machine: {arguments[0]}"
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=template.timeout_s,
        )
    except FileNotFoundError:
        raise DeviceError(f"{what} does not exist; install it, or write its full path") from None
    except OSError as error:
        raise DeviceError(f"{what} does not run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{what} did not end within {template.timeout_s:g} s; set timeout higher") from None
    if done.returncode or not made.exists():
        ended = f"exited with code {done.returncode}" if done.returncode else "did not write {converted}"
        raise DeviceError(f"{what} {ended}; its last line: {last_line(done.stdout)}")
    return made
