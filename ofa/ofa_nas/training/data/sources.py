"""Image sets by name or directory."""

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ofa_nas.errors import DataError
from ofa_nas.training.data.arrays import ArrayImages
from ofa_nas.training.data.folders import CENTRE, FolderImages
from ofa_nas.training.data.images import Array, Broken, Images
from ofa_nas.training.data.listing import SUFFIXES, first_copies, images_below, is_hidden
from ofa_tables.errors import UsageError
from ofa_tables.words import counted

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
TESTS = ("val", "validation", "test")
HELD_OUT, MOST_HELD_OUT = 0.1, 10_000
SPLIT_SEED = 20200427  # the same split in every run
MAX_BYTES = 1 << 30
VALUES = "0 to 255"
CENTRED = f"{VALUES}: the central square, {CENTRE:g} of the shorter side, resized by Pillow's bilinear filter"


@dataclass(frozen=True)
class Data:
    """``held_out`` was cut from the training images, for the accuracy curve and accuracy models; nothing is trained on
    it. ``test`` is for the end. The first images of either cover all classes. ``values`` describes the range of the
    pixels before division by 255 and normalisation. ``notes`` are messages for the user about the files.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    held_out: Images
    test: Images
    values: str = VALUES
    notes: tuple[str, ...] = ()

    def with_fewer(self, train_images: int | None) -> "Data":
        """A random subset of the training images, the same in every run; None for all."""
        if train_images is None or train_images >= len(self.train):
            return self
        chosen = np.random.default_rng(SPLIT_SEED).permutation(len(self.train))[:train_images]
        return replace(self, train=self.train.subset(sorted(int(index) for index in chosen)))

    def broken(self) -> Broken:
        """A counter that allows a fraction of all images to be broken."""
        return Broken(sum(map(len, (self.train, self.held_out, self.test))))

    def require_classes(self, count: int, names: Sequence[str] | None) -> None:
        """Raises UsageError if a network with ``count`` classes, ``names`` if known, does not fit these classes."""
        if count != len(self.classes):
            raise UsageError(
                f"the checkpoint has {count} classes and --data {self.name} has {len(self.classes)}: give the "
                "data that it was trained on"
            )
        if names is not None and tuple(names) != self.classes:
            ours, theirs = next(pair for pair in zip(self.classes, names, strict=True) if pair[0] != pair[1])
            raise UsageError(
                f"--data {self.name} has a class {ours!r} where the checkpoint's is {theirs!r}: give the data that it "
                "was trained on"
            )


def open_data(source: str) -> Data:
    """``digits``, ``fashion-mnist``, or a directory: the four files of MNIST and similar sets, or train/ and val/ with
    one directory per class. Raises DataError, UsageError.
    """
    if source == "digits":
        return _digits()
    if source == "fashion-mnist":
        return _idx(source, _fashion_folder())
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a directory; --data takes digits, fashion-mnist, or a directory of images")
    return _idx(source, folder) if _idx_file(folder, "train", "images") else _folders(source, folder)


def _data(
    name: str, classes: Sequence[str], train: Images, held_out: Images, test: Images, values: str = VALUES
) -> Data:
    if not len(held_out) or not len(test):
        raise UsageError(
            f"{name} has so few images of each class that none is left to hold out; it takes two of a class to learn "
            "from, and one to test on"
        )
    return Data(name, tuple(classes), train, _mixed_up(held_out), _mixed_up(test), values)


def _mixed_up(images: Images) -> Images:
    """Shuffle, since files list images by class."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    return images.subset([int(index) for index in order])


def _cut(labels: Array, share: float) -> tuple[list[int], list[int]]:
    """(the rest, this fraction of each class), in order."""
    rng = np.random.default_rng(SPLIT_SEED)
    share = min(share, MOST_HELD_OUT / len(labels))
    out: set[int] = set()
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(len(members) - 1, max(1, round(share * len(members))))
        out.update(int(index) for index in rng.choice(members, size=count, replace=False))
    return [index for index in range(len(labels)) if index not in out], sorted(out)


def _cut_by_name(images: FolderImages, part: str, same: Mapping[str, str]) -> tuple[FolderImages, FolderImages]:
    """(the rest, about a tenth of each class). Its name decides: adding or removing others does not move it. Copies go
    with the first of them, which ``same`` names, unless their class has nothing else.
    """
    share, labels = HELD_OUT, images.labels
    while share * len(labels) > MOST_HELD_OUT:
        share /= 2  # in steps, so that a few images more or less change nothing
    draws = np.array([_draw(f"{part}/{same.get(name, name)}") for name in images.names])
    is_out = draws < share
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if np.ptp(draws[members]) == 0:
            draws[members] = [_draw(f"{part}/{images.names[index]}") for index in members]
            is_out[members] = draws[members] < share
        is_out[draws == draws[members].min()] = True
        is_out[draws == draws[members].max()] = False
    kept, out = ([int(index) for index in np.flatnonzero(side)] for side in (~is_out, is_out))
    return images.subset(kept), images.subset(out)


def _draw(name: str) -> float:
    """A number in 0…1 that depends only on the name."""
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=6).digest()) / (1 << 48)


# In memory.


def _digits() -> Data:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError("digits come with scikit-learn: pip install 'ofa-profile[train]'") from None
    found = load_digits()
    pixels = (found.images * (255 / 16)).astype(np.uint8)
    train, test = _cut(found.target, 0.2)
    names = [str(digit) for digit in range(10)]
    data = _arrays("digits", names, *_parts(pixels, found.target, train, test), False)
    return replace(data, values=f"{VALUES}: scikit-learn's 0 to 16 times 255 / 16, rounded down")


def _parts(pixels: Array, labels: Array, train: list[int], test: list[int]) -> tuple[Array, Array, Array, Array]:
    return pixels[train], labels[train], pixels[test], labels[test]


def _arrays(
    name: str, classes: Sequence[str], pixels: Array, labels: Array, test: Array, test_labels: Array, flips: bool
) -> Data:
    mean, std = float(pixels.mean()) / 255, float(pixels.std()) / 255
    learned = ArrayImages(pixels, labels, mean, std, flips)
    train, held_out = _cut(labels, HELD_OUT)
    learned, held_back = learned.subset(train), learned.subset(held_out)
    tested = ArrayImages(test, test_labels, mean, std, flips)
    shared = held_back.shared_with(learned) + tested.shared_with(learned)
    notes = [f"--data has {counted(shared, 'held-out or test image')} among its training images, too"] if shared else []
    return replace(_data(name, classes, learned, held_back, tested), notes=tuple(notes))


def _fashion_folder() -> Path:
    if _idx_file(DEBIAN, "train", "images"):
        return DEBIAN
    raise DataError(
        f"Fashion-MNIST is not in {DEBIAN}: on Debian and Ubuntu apt install dataset-fashion-mnist puts it there; "
        "elsewhere give --data the folder of its four files (train-images-idx3-ubyte.gz …)"
    )


def _idx(name: str, folder: Path) -> Data:
    pixels, labels = _read_pair(folder, "train")
    test, test_labels = _read_pair(folder, "t10k")
    most = int(labels.max()) + 1
    fashion = "fashion" in name
    classes = FASHION if fashion and most == len(FASHION) else [str(label) for label in range(most)]
    if most < 2:
        raise DataError(f"{folder} contains images of only one class; at least two are needed")
    if int(test_labels.max()) >= most:
        raise DataError(f"{folder}: the test labels go up to {test_labels.max()}, the training labels to {most - 1}")
    return _arrays(name, classes, pixels, labels, test, test_labels, fashion)


def _idx_file(folder: Path, part: str, kind: str) -> Path | None:
    dimensions = {"images": 3, "labels": 1}[kind]
    names = [f"{part}-{kind}{mark}idx{dimensions}-ubyte{suffix}" for mark in "-." for suffix in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_pair(folder: Path, part: str) -> tuple[Array, Array]:
    found = {kind: _idx_file(folder, part, kind) for kind in ("images", "labels")}
    for kind, path in found.items():
        if path is None:
            raise DataError(f"{folder} lacks {part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz")
    pixels, labels = (_read_idx(path) for path in found.values() if path is not None)
    if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels) or not len(labels):
        raise DataError(f"{found['images']} has {len(pixels)} images and {found['labels']} {len(labels)} labels")
    return pixels, labels


def _read_idx(path: Path) -> Array:
    """An array of unsigned bytes. The file starts with two zeros, 8, the number of dimensions, and each dimension as
    four bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); copy or download it again") from None
    dimensions = content[3] if content[:3] == b"\x00\x00\x08" else 0
    sizes, values = content[4 : 4 + 4 * dimensions], content[4 + 4 * dimensions :]
    shape = tuple(int(size) for size in np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4"))
    if dimensions not in (1, 3) or len(shape) != dimensions or math.prod(shape) != len(values):
        raise DataError(f"{path} is not an idx file of bytes, or is truncated; copy or download it again")
    return np.frombuffer(values, np.uint8).reshape(shape)


# Folders.


def _folders(name: str, folder: Path) -> Data:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise UsageError("images in folders are decoded by Pillow: pip install 'ofa-profile[train]'") from None
    tests = next((folder / test for test in TESTS if (folder / test).is_dir()), None)
    if not (folder / "train").is_dir():
        return _from_one_folder(name, folder)
    if tests is None:
        raise DataError(f"{folder} has train/ but no val/; what is learned is tested on images that were not learned")
    classes, learned, notes = _read_folder(folder / "train")
    test_classes, test, test_notes = _read_folder(tests)
    if classes != test_classes:
        others = sorted(set(classes) ^ set(test_classes))
        raise DataError(f"{folder / 'train'} and {tests} differ in their classes: {', '.join(others[:5])}")
    same = _copies([*_named(learned, "train"), *_named(test, tests.name)], folder)
    within = {name[6:]: first[6:] for name, first in same.items() if name.startswith("train/")}
    train, held_out = _cut_by_name(learned, "held out", within)
    leaked = {
        name: first for name, first in same.items() if name.startswith(f"{tests.name}/") and first[:6] == "train/"
    }
    data = _data(name, classes, train, held_out, test, CENTRED)
    return replace(data, notes=(*notes, *test_notes, *_on_copies(within, learned), *_on_leaks(leaked)))


def _from_one_folder(name: str, folder: Path) -> Data:
    classes, everything, notes = _read_folder(folder)
    same = _copies(everything.names, folder)
    learned, test = _cut_by_name(everything, "test", same)
    data = _data(name, classes, *_cut_by_name(learned, "held out", same), test, CENTRED)
    return replace(data, notes=(*notes, *_on_copies(same, everything)))


def _named(images: FolderImages, part: str) -> list[str]:
    return [f"{part}/{name}" for name in images.names]


def _copies(names: Sequence[str], folder: Path) -> dict[str, str]:
    """The first of equal images, for each of the others."""
    found = first_copies([folder / name for name in names])
    return {copy.relative_to(folder).as_posix(): first.relative_to(folder).as_posix() for copy, first in found.items()}


def _on_copies(same: Mapping[str, str], images: FolderImages) -> list[str]:
    if not same:
        return []
    label_of = dict(zip(images.names, images.labels, strict=True))
    twice = [(copy, first) for copy, first in same.items() if label_of[copy] != label_of[first]]
    copy, first = next(iter(same.items()))
    notes = [
        f"--data has {counted(len(same), 'copy', 'copies')} of images (e.g. {copy} of {first}); copies stay together, "
        "all for training or all held out, where a class has enough different images"
    ]
    if twice:
        copy, first = twice[0]
        notes.append(
            f"--data has {counted(len(twice), 'image')} in several classes (e.g. {copy} is {first}); remove the "
            "wrong ones"
        )
    return notes


def _on_leaks(leaked: Mapping[str, str]) -> list[str]:
    if not leaked:
        return []
    copy, first = next(iter(leaked.items()))
    return [
        f"--data has {counted(len(leaked), 'test image')} among its training images, too (e.g. {copy} is {first}); the "
        "test accuracy is too high: remove them from one of the two"
    ]


def _read_folder(folder: Path) -> tuple[list[str], FolderImages, list[str]]:
    """(classes, images, notes), sorted by name."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    paths: list[Path] = []
    labels: list[int] = []
    hidden = 0
    for label, name in enumerate(classes):
        found, hidden_here = images_below(folder / name)
        hidden += hidden_here
        if not found:
            raise DataError(f"{folder / name} holds no images ({', '.join(sorted(SUFFIXES))}); remove or fill it")
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"{folder} holds no images; it takes a folder for each class with images in it")
    if len(classes) < 2:
        raise DataError(f"{folder} contains only one class, {classes[0]}; at least two are needed")
    images = FolderImages(folder, [path.relative_to(folder).as_posix() for path in paths], np.array(labels))
    notes = [f"{folder}: {counted(hidden, 'hidden file')} left out (such as ._a.jpg or a.jpg~)"] if hidden else []
    few = images.with_few_bits()
    if few:
        notes.append(
            f"{folder}: 16-bit images use at most 12 bits (e.g. {few[0]}) and come out dark; multiply them by 16"
        )
    return classes, images, notes
