"""The images are the same for everybody, and a damaged file is never loaded."""

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from netinvert import data
from netinvert.data import load_fashion_items, load_mnist, read_asset

TRAIN_LABELS = [3, 8, 1, 0, 4, 0, 9, 3, 4, 9, 3, 2]
TEST_LABELS = [3, 8, 8, 0, 9, 0, 9, 0, 4, 5, 5, 5]


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A copy of the assets that a test may damage."""
    for file in data.ASSETS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(data, "ASSETS", tmp_path)
    return tmp_path


OFFLINE = """
import sys
from netinvert.data import load_fashion_mnist, load_mnist

def attempt(load):
    try:
        (x, y), (x_test, y_test) = load()
        print("LOADED", x.shape, x.dtype, x.max(), y.tolist(), x_test.shape, end="END")
    except RuntimeError as error:
        print("SAID", error, end="END")

attempt(lambda: load_mnist(full=True))
attempt(load_fashion_mnist)
sys.path.insert(0, "tests")
from test_data import place_clothes
place_clothes()
attempt(load_fashion_mnist)
"""


def place_clothes():
    """Put two tiny pictures where Keras looks for Fashion-MNIST."""
    folder = Path(os.environ["KERAS_HOME"]) / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True, exist_ok=True)
    labels, pixels = np.array([3, 9], "uint8"), np.arange(2 * 784, dtype="uint8")
    for part in ("train", "t10k"):
        for kind, skip, values in [
            ("labels-idx1", 8, labels),
            ("images-idx3", 16, pixels),
        ]:
            packed = gzip.compress(bytes(skip) + values.tobytes())
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(packed)


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """What the loaders print in a process that can download nothing."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    home = {"KERAS_HOME": str(tmp_path_factory.mktemp("keras"))}
    environment = os.environ | nowhere | home
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
        environment.pop(name, None)
    printed = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env=environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    ).stdout
    return printed.split("END")


def test_the_digits_are_images_and_labels_as_keras_gives_them():
    (x_train, y_train), (x_test, y_test) = load_mnist()
    assert x_train.shape == (8000, 28, 28, 1)
    assert x_test.shape == (2000, 28, 28, 1)
    assert (y_train.shape, y_test.shape) == ((8000,), (2000,))
    for x, y in [(x_train, y_train), (x_test, y_test)]:
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0, 1)
        assert np.array_equal(np.unique(y), np.arange(10))
        np.testing.assert_array_equal(np.rint(x * 255).astype("float32") / 255, x)


def test_the_split_never_changes_and_shares_no_image():
    (x_train, y_train), (x_test, y_test) = load_mnist()
    assert y_train[:12].tolist() == TRAIN_LABELS
    assert y_test[:12].tolist() == TEST_LABELS
    assert len(np.unique(y_train[:100])) == 10, "the file's order by digit is undone"
    train = {image.tobytes() for image in x_train}
    assert not any(image.tobytes() in train for image in x_test)


def test_ten_pieces_of_clothing_come_with_the_package():
    items, labels = load_fashion_items()
    assert (items.shape, items.dtype) == ((10, 28, 28, 1), np.float32)
    assert (items.min(), items.max()) == (0, 1)
    assert labels.tolist() == list(range(10))
    ink = items.mean(axis=(1, 2, 3))
    sandal, sneaker = 5, 7
    assert set(ink.argsort()[:2]) == {sandal, sneaker}, "low shoes are the smallest"


def test_each_label_belongs_to_its_image():
    (x_train, y_train), (x_test, y_test) = load_mnist()
    means = np.stack([x_train[y_train == digit].mean(axis=0) for digit in range(10)])
    distance = ((x_test[:, None] - means) ** 2).sum(axis=(2, 3, 4))
    assert np.mean(distance.argmin(axis=1) == y_test) > 0.75


def test_a_changed_byte_is_reported_with_both_checksums(assets):
    file = assets / "mnist_10k.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RuntimeError, match="damaged") as error:
        load_mnist()
    expected = "94e2480bb2d38e772966d2564f7818de27e5e7d95984370b0cfb33e5bb4a39df"
    assert expected in str(error.value)
    assert data.hashlib.sha256(content).hexdigest() in str(error.value)


def test_a_file_cut_short_is_not_loaded(assets):
    file = assets / "mnist_10k.npz"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match="1,000 bytes"):
        load_mnist()


def test_a_missing_file_is_named_with_what_to_do(assets):
    (assets / "mnist_10k.npz").unlink()
    with pytest.raises(RuntimeError, match=r"mnist_10k\.npz is missing. Install"):
        load_mnist()


def test_a_pickle_is_refused_even_with_the_right_checksum(assets):
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{"an": "object"}], dtype=object))
    (assets / "pickle.npz").write_bytes(buffer.getvalue())
    checksum = data.hashlib.sha256(buffer.getvalue()).hexdigest()
    (assets / data.CHECKSUMS).write_text(f"{checksum}  pickle.npz\n")
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_asset("pickle.npz")


def test_without_a_network_the_full_sets_say_what_to_do(offline):
    for message, place in zip(offline, ["mnist.npz", "fashion-mnist/*-ubyte.gz"]):
        assert "SAID" in message
        assert "could not be downloaded" in message
        assert "load_mnist() gives the 10,000 bundled digits" in message
        assert f"~/.keras/datasets/{place}" in message


def test_clothes_placed_by_hand_are_scaled_like_the_digits(offline):
    assert "LOADED (2, 28, 28, 1) float32 1.0 [3, 9] (2, 28, 28, 1)" in offline[2]
