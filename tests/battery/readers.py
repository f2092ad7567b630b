"""The readers of files, each with valid files to mutate, and how it is called."""

import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from model_files import conv_onnx, loop_onnx, small_tflite, tokens_onnx
from mutations import change_bytes, change_json, change_words
from tables_of_attackers import TINY, change_table, make_table

from ofa_nas.accuracy import FunctionAccuracy, Mlp, read_members
from ofa_nas.accuracy.loading import Loaded
from ofa_nas.accuracy.pairs import begin_pairs, read_pairs
from ofa_nas.selection import read_names, read_networks
from ofa_nas.spaces import find_space
from ofa_nas.spaces.outline import outline_of
from ofa_nas.spaces.recorded import about, space_about
from ofa_profiler.commands.search import command as search_command
from ofa_profiler.commands.table import table as table_command
from ofa_profiler.models import formats as model_formats
from ofa_profiler.models.matching import Matcher
from ofa_profiler.targets.target import all_targets
from ofa_tables.formats import find_format
from ofa_tables.inspection.check import Inspected
from ofa_tables.inspection.check import check as find_errors
from ofa_tables.inspection.summary import summarise
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.store.files import write_files
from ofa_tables.table import LatencyTable

ARCHITECTURE = TINY.decode(TINY.sample(1, np.random.default_rng(1), [32]))[0].to_json()
Change = Callable[[random.Random, bytes, Path], None]


@dataclass(frozen=True)
class Reader:
    """``seeds`` writes valid files into a folder; ``change`` writes a mutated one; ``call`` reads it."""

    seeds: Callable[[Path], list[Path]]
    change: Change
    call: Callable[[Path], Any]


def as_text(change: Callable[[random.Random, str], str]) -> Change:
    def changed(random_: random.Random, content: bytes, path: Path) -> None:
        if random_.random() < 0.3:
            path.write_bytes(change_bytes(random_, content))
        else:
            path.write_bytes(change(random_, content.decode()).encode(errors="surrogatepass"))

    return changed


def _lines_of_json(random_: random.Random, text: str) -> str:
    lines = text.splitlines()
    at = random_.randrange(len(lines))
    lines[at] = change_json(random_, lines[at])
    return "\n".join(lines) + "\n"


# Tables.


def read_table(path: Path) -> None:
    with LatencyTable.read(path) as table:
        summarise(table, [TINY])
        table.store.networks()
        [trial.samples_ms for trial in table.store.measurements(samples=True)]
        find_errors(Inspected(table, TINY, [], 365.0))
        model = LatencyModel.calibrated(table, TINY)
        model.upper(TINY.sample(3, np.random.default_rng(0), model.require()), 0.95)
        repr(table)
    with LatencyTable.open(path) as table:
        assert table.entries is not None


def run_table_commands(path: Path) -> None:
    for words in (
        ["show", str(path), "--keys"],
        ["show", str(path), "--json"],
        ["check", str(path)],
        ["predict", str(path), "--space", "tiny", "--architecture", "smallest"],
        ["export", str(path), "--format", "csv", "--out", str(path.with_suffix(f".{os.urandom(4).hex()}.csv"))],
    ):
        _run(table_command, words)


def _run(command: Any, words: list[str]) -> None:
    try:
        command.main(words, standalone_mode=False)
    except SystemExit as error:
        if error.code not in (0, 1, 2):
            raise


def _table(folder: Path) -> list[Path]:
    make_table(folder / "seed.lut")
    return [folder / "seed.lut"]


def _exported(format: str) -> Callable[[Path], list[Path]]:
    def seeds(folder: Path) -> list[Path]:
        (path,) = _table(folder)
        with LatencyTable.read(path) as table:
            contents = find_format(format).write(table, folder / "32_lookup_table.csv", TINY)
        write_files(contents)
        return list(contents)

    return seeds


def _import(format: str) -> Callable[[Path], None]:
    return lambda path: [find_format(format).read(path, TINY)]


# Architectures and targets.


def _architectures(folder: Path) -> list[Path]:
    mbv3 = find_space("ofa-mbv3-w1.0")
    values = {
        "one.json": json.dumps(ARCHITECTURE),
        "named.json": json.dumps(
            {"front": [{"name": "a", "architecture": ARCHITECTURE}, {"name": "b", "architecture": ARCHITECTURE}]}
        ),
        "short.json": json.dumps([{"ks": 3, "e": 2, "d": 1, "r": 32}, "smallest", "random:3"]),
        "net.json": json.dumps(_network_config(mbv3)),
        "printed.txt": "[{'ks': 3, 'e': np.int64(2), 'd': array([1, 2, 1]), 'r': (32,)}]",
    }
    for name, text in values.items():
        (folder / name).write_text(text)
    return [folder / name for name in values]


def _network_config(space: Any) -> dict[str, Any]:
    layout = space.layout
    conv = {"name": "MBConvLayer", "out_channels": layout.first_channels[1], "kernel_size": 3, "expand_ratio": 3}
    blocks = [{"mobile_inverted_conv": conv}]
    for stage in layout.stages:
        of_stage = {
            **conv,
            "out_channels": stage.channels,
            "use_se": stage.squeeze_excite,
            "act_func": stage.activation,
        }
        blocks += [{"conv": {**of_stage, "stride": stride}, "shortcut": None} for stride in (stage.stride, 1)]
    return {
        "name": "MobileNetV3",
        "first_conv": {"out_channels": layout.first_channels[0]},
        "blocks": blocks,
        "feature_mix_layer": {"out_channels": layout.last_channels[-1]},
        "classifier": {"out_features": 1000},
        "r": 224,
    }


def _change_architecture(random_: random.Random, text: str) -> str:
    return change_words(random_, text) if text.startswith("[{'") else change_json(random_, text)


def read_architecture_file(path: Path) -> None:
    space = find_space("ofa-mbv3-w1.0") if "net" in path.name else TINY
    read_names(str(path), space)
    read_networks(str(path), space)
    if "one" in path.name:
        read_networks(str(path))


TARGETS = """
[board]
connection = "ssh"
address = "user@board"
runtimes = ["onnxruntime", "torch"]
set = { governor = "performance" }

[other]
like = "board"
precision = "fp16"
notes = ["a", '''b''']
"""


def _targets(folder: Path) -> list[Path]:
    (folder / "seed.toml").write_text(TARGETS)
    return [folder / "seed.toml"]


def read_targets(path: Path) -> None:
    here = Path.cwd()
    folder = path.with_suffix(".d")
    folder.mkdir(exist_ok=True)
    (folder / "targets.toml").unlink(missing_ok=True)
    os.link(path, folder / "targets.toml")
    os.chdir(folder)
    try:
        all_targets()
    finally:
        os.chdir(here)


# Spaces.


EXAMPLES = Path(__file__).parents[2] / "examples" / "spaces"


def _spaces(folder: Path) -> list[Path]:
    built_in = resources.files("ofa_nas.spaces").joinpath("built_in")
    texts = {path.name: path.read_text() for path in EXAMPLES.glob("*.toml")}
    texts |= {name: built_in.joinpath(f"{name}.toml").read_text() for name in ("tiny", "ofa-resnet50d", "compofa-tiny")}
    found = []
    for name, text in texts.items():
        path = folder / f"{Path(name).stem}.toml"
        path.write_text(f'name = "mine"\n{text}')
        found.append(path)
    return found


def read_space_file(path: Path) -> None:
    space = find_space(str(path))
    outline_of(space)
    space.network(space.decode(space.sample(1, np.random.default_rng(0)))[0])


# Accuracy: pairs and npz.


def _pairs(folder: Path) -> list[Path]:
    header = {"space": "tiny", "data": "digits", "checkpoint": "0", "images": 10}
    lines = [header, *[{"architecture": ARCHITECTURE, "accuracy": 0.5, "halves": [0.5, 0.5]}] * 3]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [folder / "pairs.jsonl"]
    for source in _spaces(folder):  # with the definition of its space
        space = find_space(str(source))
        network = space.decode(space.sample(1, np.random.default_rng(0)))[0].to_json()
        lines = [{**header, **about(space)}, {"architecture": network, "accuracy": 0.5, "halves": [0.5, 0.5]}]
        found.append(source.with_suffix(".jsonl"))
        found[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
        source.unlink()
    return found


def read_pairs_file(path: Path) -> None:
    found = read_pairs(path)
    space_about(found.about, str(path)).encode(found.architectures)
    begin_pairs(path, dict(found.about))


def _evaluated(folder: Path) -> list[Path]:
    header = {**about(TINY), "accuracy": "made up"}
    lines = [header, *[{"architecture": ARCHITECTURE, "accuracy": 0.5, "halves": [0.5, 0.5]}] * 3]
    (folder / "evaluated.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [folder / "evaluated.jsonl"]


def read_evaluated(path: Path) -> None:
    FunctionAccuracy(TINY, Loaded("made up", lambda networks: [0.5] * len(networks), by_name=False), path)


def _npz(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    arrays = {"0.weight": rng.random((4, 128)), "0.bias": rng.random(4), "2.weight": rng.random((1, 4))}
    np.savez(folder / "model.npz", **arrays, **{"2.bias": rng.random(1)})
    return [folder / "model.npz"]


SHAPES = ("(True, 128)", "(4, 10**12)", "(-1, 128)", "(4,)", "()", "(4, 128, 1)", "(0, 99999999999)", "(1e3,)", "4")
DTYPES = ("<f4", "|O", "<f8", "<i8", "<U9", "<c16", "V8", "<f2", "3f4", ">f8", "x", "<m8", "f16")


def change_npz(random_: random.Random, content: bytes, path: Path) -> None:
    """Change bytes of the file, or those inside of it: headers of arrays, names, sizes, compression."""
    if random_.random() < 0.3:
        path.write_bytes(change_bytes(random_, content))
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = random_.choice(list(members))
    kind = random_.randrange(5)
    if kind == 0:
        members[name] = change_bytes(random_, members[name])
    elif kind <= 2:
        header = members[name][10:128].decode("latin1")
        shape = random_.choice(SHAPES) if random_.random() < 0.7 else "(4, 128)"
        dtype = random_.choice(DTYPES) if kind == 2 else "<f8"
        text = f"{{'descr': '{dtype}', 'fortran_order': {random_.choice((True, False, 2))}, 'shape': {shape}, }}"
        members[name] = members[name][:10] + text.ljust(len(header) - 1).encode() + b"\n" + members[name][128:]
    elif kind == 3:
        members[random_.choice(("x.npy", "0.weight.npy", "9.9.9.weight", "../x", "/", "é"))] = members.pop(name)
    else:
        members |= {f"{number}.bias.npy": members[name] for number in range(random_.choice((1, 10, 1100)))}
    with zipfile.ZipFile(
        path, "w", random_.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    ) as new:
        for each, inside in members.items():
            new.writestr(each, inside)


def read_model(path: Path) -> None:
    Mlp(find_space("ofa-mbv3-w1.0"), read_members(path), path.name)


def search(path: Path) -> None:
    words = ["--space", "tiny", "--resolutions", "32", "--accuracy", "macs", "--population", "10", "--generations", "3"]
    words += ["--max-latency-ms", "100", "--confidence", "0.9"]
    _run(search_command, [*words, "--table", str(path), "--json", "--out", str(path.with_suffix(".out"))])


# Model files.


def _onnx(folder: Path) -> list[Path]:
    conv_onnx(folder / "conv.onnx")
    tokens_onnx(folder / "tokens.onnx")
    loop_onnx(folder / "loop.onnx")
    return [folder / name for name in ("conv.onnx", "tokens.onnx", "loop.onnx")]


def _tflite(folder: Path) -> list[Path]:
    return [small_tflite(folder / "small.tflite")]


def change_model(random_: random.Random, content: bytes, path: Path) -> None:
    """Change bytes mostly outside the weights, which are most of a file and may have any values."""
    edge = min(len(content), 1500)
    where = random_.random()
    if where < 0.45:
        content = change_bytes(random_, content[:edge]) + content[edge:]
    elif where < 0.9:
        content = content[:-edge] + change_bytes(random_, content[-edge:])
    else:
        content = change_bytes(random_, content)
    path.write_bytes(content)


def read_model_file(path: Path) -> None:
    file = model_formats.read_model(path, {})
    assert file.key
    Matcher(file.operators).find(file.operators[0].name, "Conv")


READERS = {
    "onnx": Reader(_onnx, change_model, read_model_file),
    "tflite": Reader(_tflite, change_model, read_model_file),
    "table": Reader(_table, change_table, read_table),
    "table-commands": Reader(_table, change_table, run_table_commands),
    "search": Reader(_table, change_table, search),
    "csv": Reader(_exported("csv"), as_text(change_words), _import("csv")),
    "yaml": Reader(_exported("ofa-yaml"), as_text(change_words), _import("ofa-yaml")),
    "architecture": Reader(_architectures, as_text(_change_architecture), read_architecture_file),
    "targets": Reader(_targets, as_text(change_words), read_targets),
    "space": Reader(_spaces, as_text(change_words), read_space_file),
    "pairs": Reader(_pairs, as_text(_lines_of_json), read_pairs_file),
    "evaluated": Reader(_evaluated, as_text(_lines_of_json), read_evaluated),
    "npz": Reader(_npz, change_npz, read_model),
}
