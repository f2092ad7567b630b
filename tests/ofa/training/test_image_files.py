"""Image files of every mode, and files that are not images although their names say so."""

import re
import shutil

import numpy as np
import pytest

from ofa_nas.errors import DataError
from ofa_nas.training.data import Draw, open_data
from ofa_nas.training.data.folders import IMAGENET

Image = pytest.importorskip("PIL.Image", reason="Pillow decodes images")

PX = 24


@pytest.fixture
def make_folder(tmp_path):
    """Two classes of noise, in train/ and val/, or alone."""

    def make(parts=("train/", "val/"), count=12):
        rng = np.random.default_rng(0)
        for part in parts:
            for name in ("cat", "dog"):
                folder = tmp_path / "images" / part / name
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number:03}.png")
        return tmp_path / "images"

    return make


@pytest.fixture
def decoded(make_folder):
    """The pixels, 0…255, that training sees in place of an image: as in evaluation, and augmented."""

    def of(image, suffix="png", seed=None):
        folder = make_folder()
        for path in folder.rglob("*.png"):
            path.unlink()
            image.save(path.with_suffix(f".{suffix}"))
        images = open_data(str(folder)).train
        (pixels,) = images.__getitems__([Draw(0, PX, seed)]).images
        return (pixels.permute(1, 2, 0).numpy() * IMAGENET.std + IMAGENET.mean) * 255

    return of


RAMP = np.linspace(0, 255, 32 * 32).reshape(32, 32)


def expected(grey):
    return np.asarray(Image.fromarray(grey.astype(np.uint8)).convert("RGB").crop((2, 2, 30, 30)).resize((PX, PX)))


def wide(mode, suffix="tiff"):
    """A ramp from black to white with more than 8 bits."""
    if mode == "F":
        return Image.fromarray((RAMP / 255).astype(np.float32)), suffix
    if mode == "I":
        return Image.fromarray((RAMP * 257).astype(np.int32)), suffix
    order = ">u2" if mode == "I;16B" else "<u2"
    return Image.frombytes(mode, (32, 32), (RAMP * 257).astype(order).tobytes()), suffix


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("I;16", "png"), ("I;16", "tiff"), ("I;16B", "tiff"), ("I;16", "pgm"), ("I", "tiff"), ("F", "tiff")],
)
def test_more_than_8_bits_keep_their_shades(decoded, mode, suffix, seed):
    image, suffix = wide(mode, suffix)
    pixels = decoded(image, suffix, seed)
    assert pixels.std() > 20
    if seed is None:
        assert np.abs(pixels - expected(RAMP)).max() < 12


def test_a_dark_image_of_16_bits_stays_dark(decoded):
    pixels = decoded(Image.fromarray(np.full((32, 32), 40 * 257, np.uint16)))
    assert np.abs(pixels - 40).max() < 1


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (np.full((32, 32), 3.5, np.float32), "mode F has values from 3.5 to 3.5, not 0 to 1"),
        (np.full((32, 32), np.nan, np.float32), "mode F has values from nan to nan, not 0 to 1"),
        (np.full((32, 32), -7, np.int32), "mode I has values from -7 to -7, not 0 to 65,535"),
        (np.full((32, 32), 1 << 20, np.int32), r"mode I has values from 1\.04858e\+06 to"),
    ],
)
def test_values_of_no_known_range_are_refused_by_name(decoded, values, named):
    with pytest.raises(DataError, match=rf"\d{{3}}\.tiff: {named}.*; save the image with 8 bits"):
        decoded(Image.fromarray(values), "tiff")


def test_a_mode_without_colours_is_refused_by_name(decoded):
    with pytest.raises(DataError, match=r"\d{3}\.tiff: mode LAB has no conversion to RGB; save the image as RGB"):
        decoded(Image.new("LAB", (32, 32)), "tiff")


def half_transparent(mode):
    """Red on the left; transparent on the right, above hidden blue."""
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (16, 0, 32, 32))
    if mode == "P":
        palette = Image.new("P", (32, 32), 0)
        palette.putpalette([255, 0, 0, 0, 0, 255])
        palette.paste(1, (16, 0, 32, 32))
        palette.info["transparency"] = 1
        return palette
    return image.convert(mode)


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "png"), ("P", "png"), ("P", "gif"), ("RGBA", "tiff")])
def test_transparent_pixels_are_white(decoded, mode, suffix):
    pixels = decoded(half_transparent(mode), suffix)
    assert np.allclose(pixels[:, :10], (255, 0, 0), atol=2)
    assert np.allclose(pixels[:, 14:], 255, atol=2)


def test_grey_with_transparency(decoded):
    image = Image.new("LA", (32, 32), (90, 255))
    image.paste((0, 0), (16, 0, 32, 32))
    pixels = decoded(image)
    assert np.allclose(pixels[:, :10], 90, atol=2)
    assert np.allclose(pixels[:, 14:], 255, atol=2)


@pytest.mark.parametrize(
    ("image", "suffix", "colour"),
    [
        (Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "jpg", (255, 0, 0)),
        (Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "tiff", (255, 0, 0)),
        (Image.new("1", (32, 32), 1), "png", (255, 255, 255)),
        (Image.new("1", (32, 32), 0), "png", (0, 0, 0)),
        (Image.new("L", (32, 32), 70), "jpg", (70, 70, 70)),
        (Image.new("RGB", (32, 32), (10, 200, 30)).convert("P"), "gif", (10, 200, 30)),
        (Image.new("YCbCr", (32, 32), (128, 128, 128)), "jpg", (128, 128, 128)),
    ],
)
def test_other_modes_keep_their_colours(decoded, image, suffix, colour):
    assert np.allclose(decoded(image, suffix), colour, atol=27 if image.mode == "P" else 4)


def test_images_of_12_bits_in_16_are_mentioned(make_folder):
    folder = make_folder()
    for path in (folder / "train").rglob("*.png"):
        Image.fromarray((RAMP * 16).astype(np.uint16)).save(path)
    (note,) = [note for note in open_data(str(folder)).notes if "bits" in note]
    assert re.search(r"train: 16-bit images use at most 12 bits \(e\.g\. cat/000\.png\) and come out dark", note)


# Files that are not images.

HIDDEN = ("._{0}", ".{0}", ".ipynb_checkpoints/{0}", "{0}~", "__MACOSX/{0}", "@eaDir/{0}", ".AppleDouble/{0}", "~${0}")


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("parts", [("train/", "val/"), ("",)])
def test_hidden_files_are_no_images(make_folder, hidden, parts):
    folder = make_folder(parts)
    before = names(open_data(str(folder)))
    for path in list(folder.rglob("*.png")):
        copy = path.parent / hidden.format(path.name)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(b"Mac OS X" if hidden == "._{0}" else path.read_bytes())
    data = open_data(str(folder))
    assert names(data) == before
    assert sum("hidden file" in note for note in data.notes) == len(parts)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir"])
def test_hidden_folders_are_no_classes(make_folder, name):
    folder = make_folder()
    shutil.copytree(folder / "train" / "cat", folder / "train" / name)
    assert open_data(str(folder)).classes == ("cat", "dog")


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", ".DS_Store", "labels.txt", "000.png.bak", "#000.png#"])
def test_other_files_are_no_images(make_folder, name):
    folder = make_folder()
    before = names(open_data(str(folder)))
    (folder / "train" / "cat" / name).write_bytes(b"something")
    assert names(open_data(str(folder))) == before


def test_a_folder_with_the_name_of_an_image_is_none(make_folder):
    folder = make_folder()
    (folder / "train" / "cat" / "more.png").mkdir()
    assert len(open_data(str(folder)).train.names) == len(set(open_data(str(folder)).train.names) - {"cat/more.png"})


def names(data):
    return [data.train.names, data.held_out.names, data.test.names]


# Copies.


def contents(folder, images):
    return {(folder / name).read_bytes() for name in images.names}


@pytest.mark.parametrize("copied", ["{0} copy.png", "copy of {0}.png", "{0} (1).png", "sub/{0}.png", "{0}.PNG"])
def test_copies_are_not_both_learned_and_held_out(make_folder, copied):
    folder = make_folder(("",), count=60)
    for path in list(folder.rglob("*.png")):
        target = path.parent / copied.format(path.stem)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    data = open_data(str(folder))
    parts = [contents(folder, images) for images in (data.train, data.held_out, data.test)]
    assert all(parts)
    assert sum(map(len, parts)) == 120
    assert len(set().union(*parts)) == 120
    (note,) = data.notes
    assert re.search(r"--data has 120 copies of images \(e\.g\. cat/.* of cat/.*\); copies stay together", note)


def test_copies_within_train_are_not_held_out_from_each_other(make_folder):
    folder = make_folder(count=60)
    for path in list((folder / "train").rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    data = open_data(str(folder))
    learned, held_out = (contents(folder / "train", images) for images in (data.train, data.held_out))
    assert held_out
    assert not learned & held_out


def test_test_images_that_are_learned_are_mentioned(make_folder):
    folder = make_folder()
    shutil.copy(folder / "train/dog/003.png", folder / "val/dog/extra.png")
    (note,) = open_data(str(folder)).notes
    assert note.startswith(
        "--data has 1 test image among its training images, too (e.g. val/dog/extra.png is train/dog/003.png)"
    )


def test_an_image_in_two_classes_is_mentioned(make_folder):
    folder = make_folder()
    shutil.copy(folder / "train/dog/003.png", folder / "train/cat/dog.png")
    notes = open_data(str(folder)).notes
    assert any("--data has 1 image in several classes" in note for note in notes)


def test_a_class_that_has_only_copies_of_one_image_is_trained(make_folder):
    folder = make_folder()
    one = (folder / "train" / "cat" / "000.png").read_bytes()
    for path in (folder / "train" / "cat").iterdir():
        path.write_bytes(one)
    data = open_data(str(folder))
    assert {0, 1} == set(data.train.labels) == set(data.held_out.labels)
    assert len(data.train) > 15


def test_images_without_copies_are_split_without_a_note(make_folder):
    data = open_data(str(make_folder()))
    assert data.notes == ()
    assert sorted(data.held_out.names) == ["cat/001.png", "dog/003.png"]  # as in earlier versions
