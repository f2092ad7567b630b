import gzip
import multiprocessing
import struct

import numpy as np
import pytest
import torch

from ofa_nas.errors import DataError
from ofa_nas.training.data import Broken, Draw, evaluation_batches, loader, open_data, training_batches
from ofa_nas.training.data.sources import DEBIAN
from ofa_tables.errors import OfaError, UsageError

pytest.importorskip("sklearn", reason="scikit-learn brings the digits")
Image = pytest.importorskip("PIL.Image", reason="Pillow decodes images")

SIZES = (20, 24, 28, 32)


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


@pytest.fixture
def make_tree(tmp_path):
    """ImageNet's layout: class folders of small JPEGs, whose colour tells the class."""

    def make(parts=("train", "val"), classes=("cat", "dog"), count=12, broken=()):
        rng = np.random.default_rng(0)
        for part in parts:
            for at, name in enumerate(classes):
                folder = tmp_path / "images" / part / name
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 100, (40 + number, 50, 3)).astype(np.uint8)
                    pixels[..., at % 3] += 120
                    Image.fromarray(pixels).save(folder / f"{number:03}.jpg")
        for path in broken:
            (tmp_path / "images" / path).write_bytes(b"\xff\xd8 no image")
        return tmp_path / "images"

    return make


def draws(images, **changes):
    return training_batches(images, **{"seed": 0, "epoch": 0, "batch_size": 16, "resolutions_px": SIZES} | changes)


def test_held_out_images_are_not_trained_on(digits):
    parts = (digits.train, digits.held_out, digits.test)
    assert sum(map(len, parts)) == 1797
    everything = [set(map(bytes, part._pixels)) for part in parts]
    assert not everything[0] & everything[1]
    assert not (everything[0] | everything[1]) & everything[2]
    for part in parts:
        assert set(part.labels) == set(range(10))


def test_the_first_images_that_are_held_out_are_of_all_classes(digits):
    for part in (digits.held_out, digits.test):
        assert set(part.labels[:80]) == set(range(10))


def test_fewer_images_are_the_same_ones_each_time(digits):
    once, again = (digits.with_fewer(100).train for _ in range(2))
    assert len(once) == 100
    assert (once._pixels == again._pixels).all()
    assert len(digits.with_fewer(None).train) == len(digits.train)


def test_the_size_of_a_batch_is_the_same_on_every_process_and_changes(digits):
    ranks = [draws(digits.train, rank=rank, world=2) for rank in range(2)]
    sizes = [[{draw.px for draw in batch} for batch in batches] for batches in ranks]
    assert sizes[0] == sizes[1]
    assert all(len(each) == 1 for each in sizes[0])
    assert set().union(*sizes[0]) == set(SIZES)


def test_the_processes_parts_are_the_batch_of_one_process(digits):
    whole = draws(digits.train)
    parts = [draws(digits.train, rank=rank, world=2) for rank in range(2)]
    assert whole == [one + other for one, other in zip(*parts, strict=True)]


def test_an_epoch_has_each_image_once_and_another_order_than_the_next(digits):
    first, second = ([draw.image for batch in draws(digits.train, epoch=epoch) for draw in batch] for epoch in (0, 1))
    assert len(first) == len(set(first)) == len(digits.train) // 16 * 16
    assert first != second


def test_going_on_in_the_middle_of_an_epoch(digits):
    assert draws(digits.train, first=5) == draws(digits.train)[5:]


def test_a_batch_that_processes_cannot_share(digits):
    with pytest.raises(UsageError, match=r"3 processes cannot share batches of 16 of .* give a --batch-size that they"):
        draws(digits.train, world=3)


def test_fewer_images_than_a_batch_form_one_batch(digits):
    (batch,) = draws(digits.train.subset(range(10)))
    assert len(batch) == 10


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_is_the_same_whoever_loads_it(digits, workers):
    batches = draws(digits.train)[:4]
    expected = [digits.train.__getitems__(batch) for batch in batches]
    for found, wanted in zip(loader(digits.train, batches, workers), expected, strict=True):
        assert torch.equal(found.images, wanted.images)
        assert torch.equal(found.labels, wanted.labels)
        assert found.images.is_contiguous(memory_format=torch.channels_last)
        assert found.images.dtype == torch.float32


def test_the_augmentation_of_an_image_has_its_own_seed(digits):
    alike = digits.train.__getitems__([Draw(0, 28, 5), Draw(1, 28, 6)])
    alone = digits.train.__getitems__([Draw(1, 28, 6)])
    assert torch.equal(alike.images[1], alone.images[0])
    many = digits.train.__getitems__([Draw(0, 28, seed) for seed in range(50)]).images
    assert 20 <= len({bytes(image.numpy()) for image in many}) <= 25  # five shifts each way, no flips


def test_evaluation_uses_all_images_without_augmentation(digits):
    ranks = [evaluation_batches(digits.test, px=24, batch_size=100, rank=rank, world=2) for rank in range(2)]
    images = sorted(draw.image for batches in ranks for batch in batches for draw in batch)
    assert images == list(range(len(digits.test)))
    assert all(draw.seed is None for batch in ranks[0] for draw in batch)


def test_images_are_normalised(digits):
    images = torch.cat(
        [b.images for b in loader(digits.train, evaluation_batches(digits.train, px=28, batch_size=500))]
    )
    assert abs(images.mean()) < 0.05
    assert 0.8 < images.std() < 1.1


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist():
    data = open_data("fashion-mnist")
    assert (len(data.train), len(data.held_out), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.classes[9] == "ankle boot"


# Folders.


def test_a_tree_of_folders(make_tree):
    data = open_data(str(make_tree()))
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.held_out), len(data.test)) == (20, 4, 24)
    for images, drawn in ((data.train, draws(data.train, batch_size=4)), (data.test, evaluation_of(data.test))):
        for batch in loader(images, drawn):
            assert batch.images.shape[1:] in {(3, px, px) for px in SIZES}
            reds = batch.images[:, 0].mean((1, 2)) - batch.images[:, 1].mean((1, 2))
            assert ((reds < 0) == (batch.labels == 1)).all()


def evaluation_of(images):
    return evaluation_batches(images, px=24, batch_size=10)


def test_crops_and_flips_vary_and_repeat(make_tree):
    images = open_data(str(make_tree())).train
    once, again = (images.__getitems__([Draw(0, 24, seed) for seed in range(6)]).images for _ in range(2))
    assert torch.equal(once, again)
    assert len({bytes(image.contiguous().numpy()) for image in once}) == 6


def test_class_folders_alone_are_split(make_tree):
    folder = make_tree(parts=("train",))
    data = open_data(str(folder / "train"))
    assert len(data.train) + len(data.held_out) + len(data.test) == 24
    for part in (data.train, data.held_out, data.test):
        assert set(part.labels) == {0, 1}


def test_held_out_images_stay_so_if_images_are_added_or_removed(make_tree):
    folder = make_tree(parts=("train",), count=100) / "train"
    before = open_data(str(folder))
    for number in range(0, 100, 9):
        (folder / "cat" / f"{number:03}.jpg").unlink()
    after = open_data(str(folder))
    for part in ("train", "held_out", "test"):
        assert set(getattr(after, part).names) <= set(getattr(before, part).names)
    assert 10 <= len(before.held_out) <= 30


def test_which_images_they_are_is_reported_by_a_digest(make_tree, digits):
    folder = make_tree()
    before = open_data(str(folder)).train.digest()
    assert open_data(str(folder)).train.digest() == before
    data = open_data(str(folder))
    (folder / "train" / data.train.names[3]).unlink()
    assert open_data(str(folder)).train.digest() != before
    assert digits.train.digest() == open_data("digits").train.digest() != digits.test.digest()


def test_one_image_of_each_class_leaves_none_to_hold_out(make_tree):
    with pytest.raises(UsageError, match="has so few images of each class that none is left to hold out"):
        open_data(str(make_tree(count=1)))


def test_a_broken_image_is_reported_and_another_stands_in_its_place(make_tree):
    data = open_data(str(make_tree(broken=["val/cat/003.jpg"])))
    at = data.test.names.index("cat/003.jpg")
    (batch,) = loader(data.test, [[Draw(at, 24, None), Draw((at + 1) % 24, 24, None)]])
    assert [path.split("/")[-3:] for path in batch.broken] == [["val", "cat", "003.jpg"]]
    assert torch.equal(batch.images[0], batch.images[1])


def test_too_many_broken_images():
    broken = Broken(200)
    broken.add(["a.jpg"] * 100)
    broken.add(f"{number}.jpg" for number in range(9))
    with pytest.raises(DataError, match=r"11 images cannot be decoded, more than the 10 that are borne \(e\.g\. "):
        broken.add(["b.jpg"])


def test_an_image_that_would_fill_the_memory_is_a_broken_one(make_tree, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    data = open_data(str(make_tree()))
    with pytest.raises(DataError, match="20 images in a row cannot be decoded"):
        data.test.__getitems__([Draw(0, 24, None)])


@pytest.mark.parametrize("workers", [0, 1])
def test_every_image_broken(make_tree, workers):
    names = [f"val/{name}/{number:03}.jpg" for name in ("cat", "dog") for number in range(12)]
    data = open_data(str(make_tree(broken=names)))
    with pytest.raises(DataError, match=r"^20 images in a row cannot be decoded, the first is .*/val/.*; fix them$"):
        list(loader(data.test, [[Draw(0, 24, None)]], workers))


def test_a_worker_that_is_killed(digits):
    batches = loader(digits.train, draws(digits.train) * 20, 1)
    next(batches)
    for child in multiprocessing.active_children():
        child.kill()
    with pytest.raises(OfaError, match=r"^a process that loads images was killed, .*: resume with fewer --workers$"):
        list(batches)


def test_no_folder(tmp_path):
    with pytest.raises(
        DataError, match=r"/none is not a directory; --data takes digits, fashion-mnist, or a directory of images"
    ):
        open_data(str(tmp_path / "none"))


def test_a_folder_without_images(tmp_path):
    with pytest.raises(DataError, match="holds no images; it takes a folder for each class with images in it"):
        open_data(str(tmp_path))


def test_a_class_without_images(make_tree):
    folder = make_tree()
    (folder / "train" / "bird").mkdir()
    with pytest.raises(DataError, match="train/bird holds no images"):
        open_data(str(folder))


def test_one_class(make_tree):
    with pytest.raises(DataError, match="train contains only one class, cat; at least two are needed"):
        open_data(str(make_tree(classes=("cat",))))


def test_other_classes_in_val(make_tree):
    folder = make_tree()
    (folder / "val" / "dog").rename(folder / "val" / "wolf")
    with pytest.raises(DataError, match="differ in their classes: dog, wolf"):
        open_data(str(folder))


def test_train_without_val(make_tree):
    with pytest.raises(DataError, match="has train/ but no val/"):
        open_data(str(make_tree(parts=("train",))))


# MNIST's files.


def write_idx(folder, part, pixels, labels):
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
        file.write(struct.pack(">BBBBIII", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes())
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
        file.write(struct.pack(">BBBBI", 0, 0, 8, 1, len(labels)) + labels.tobytes())


@pytest.fixture
def idx(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        write_idx(tmp_path, part, rng.integers(0, 255, (count, 9, 9), np.uint8), np.arange(count, dtype=np.uint8) % 4)
    return tmp_path


def test_the_four_files(idx):
    data = open_data(str(idx))
    assert (len(data.classes), len(data.test)) == (4, 20)


def test_images_that_are_learned_and_held_out_are_mentioned(idx, digits):
    assert digits.notes == open_data(str(idx)).notes == ()
    pixels = np.zeros((40, 9, 9), np.uint8)
    pixels[:, 0, 0] = np.arange(40) % 20
    write_idx(idx, "train", pixels, np.arange(40, dtype=np.uint8) % 4)
    write_idx(idx, "t10k", pixels[:20], np.arange(20, dtype=np.uint8) % 4)
    (note,) = open_data(str(idx)).notes
    assert note == "--data has 24 held-out or test images among its training images, too"


def test_a_truncated_file(idx):
    path = idx / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read .* copy or download it again"):
        open_data(str(idx))


def test_a_foreign_file(idx):
    (idx / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"labels, perhaps"))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is not an idx file of bytes, or is truncated"):
        open_data(str(idx))


def test_counts_that_do_not_agree(idx):
    write_idx(idx, "train", np.zeros((3, 9, 9), np.uint8), np.zeros(4, np.uint8))
    with pytest.raises(DataError, match=r"has 3 images and .* 4 labels"):
        open_data(str(idx))


def test_a_missing_file(idx):
    (idx / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"lacks train-labels-idx1-ubyte\.gz"):
        open_data(str(idx))
