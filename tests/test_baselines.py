"""Baselines give their known answers, and their known scores on the digits."""

import numpy as np
import pytest

from netinvert import baselines, metrics
from netinvert.data import load_mnist
from netinvert.forward import tap
from netinvert.models import pretrained

SAME_CALL = [
    baselines.blank,
    baselines.mean_image,
    baselines.nearest_neighbor,
    baselines.knn_mean,
    baselines.ridge,
]


@pytest.fixture
def pairs():
    """Thirty small images, and four linear measurements of each."""
    generator = np.random.default_rng(0)
    images = generator.random((30, 3, 2, 1)).astype("float32")
    return images, images.reshape(30, 6) @ generator.normal(size=(6, 4))


def test_the_nearest_neighbor_of_a_training_output_is_its_own_input(pairs):
    inputs, outputs = pairs
    found = baselines.nearest_neighbor(inputs, outputs, outputs[5:9])
    np.testing.assert_allclose(found, inputs[5:9])


def test_neighbors_are_those_with_the_closest_outputs_and_count_alike():
    inputs = np.array([[0.0], [1.0], [2.0], [9.0]])
    outputs = np.array([[10.0], [11.0], [13.0], [30.0]])
    found = baselines.knn_mean(inputs, outputs, np.array([[11.4], [25.0]]), k=2)
    np.testing.assert_allclose(found, [[0.5], [5.5]])


def test_with_all_neighbors_the_answer_is_the_mean_image(pairs):
    inputs, outputs = pairs
    everyone = baselines.knn_mean(inputs, outputs, outputs[:3], k=30)
    mean = baselines.mean_image(inputs, outputs, outputs[:3])
    np.testing.assert_allclose(everyone, mean, rtol=1e-6)


def test_neighbors_of_one_target_do_not_depend_on_chunks(pairs, monkeypatch):
    inputs, outputs = pairs
    whole = baselines.knn_mean(inputs, outputs, outputs, k=3)
    monkeypatch.setattr(baselines, "CHUNK", 7)
    np.testing.assert_array_equal(
        baselines.knn_mean(inputs, outputs, outputs, k=3), whole
    )


def test_the_class_mean_is_taken_over_the_named_class():
    inputs = np.array([[0.0], [1.0], [4.0], [8.0]])
    found = baselines.class_mean(inputs, np.array([7, 7, 3, 3]), np.array([3, 7, 3]))
    np.testing.assert_allclose(found, [[6.0], [0.5], [6.0]])
    with pytest.raises(ValueError, match="training labels"):
        baselines.class_mean(inputs, np.array([7, 7, 3, 3]), np.array([5]))


def test_ridge_inverts_what_is_linear_and_was_seen_completely():
    generator = np.random.default_rng(0)
    images = generator.random((50, 6)).astype("float32")
    images[40:] = 0.2 + 0.6 * images[40:]  # well within the range of the others
    network = generator.normal(size=(6, 9))
    found = baselines.ridge(images[:40], images[:40] @ network, images[40:] @ network)
    np.testing.assert_allclose(found, images[40:], atol=1e-4)


def test_ridge_falls_back_to_the_mean_where_outputs_say_nothing(pairs):
    inputs, _ = pairs
    noise = np.random.default_rng(1).normal(size=(60, 20))
    mean = baselines.mean_image(inputs, noise[:30], noise[30:])
    ridge = baselines.ridge(inputs, noise[:30], noise[30:])
    unpenalised = noise[30:] @ np.linalg.lstsq(noise[:30], inputs.reshape(30, 6))[0]
    distance = metrics.mse(mean, ridge).mean()
    assert distance < 0.1 * metrics.mse(mean.reshape(30, 6), unpenalised).mean()
    constant = np.ones((30, 4))
    np.testing.assert_allclose(
        baselines.ridge(inputs, constant, constant), mean, rtol=1e-6
    )


def test_the_pca_floor_loses_exactly_the_variance_it_leaves_out():
    images = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    images[:, 0] = [10, -10] + 38 * [0]  # so wide a range that nothing is clipped
    images[:2, 1:] = 0
    values = np.linalg.svd(images - images.mean(0), compute_uv=False) ** 2
    for k in (1, 3, 6):
        lost = metrics.mse(images, baselines.pca_floor(images, images, k))
        np.testing.assert_allclose(lost.sum() * 6, values[k:].sum(), atol=1e-3)


@pytest.mark.parametrize("baseline", SAME_CALL)
def test_an_answer_is_shaped_like_an_input_and_stays_in_their_range(baseline, pairs):
    inputs, outputs = pairs
    found = baseline(inputs, outputs, 100 * outputs[:7])
    assert found.shape == (7, 3, 2, 1) and found.dtype == np.float32
    if baseline is not baselines.blank:
        assert inputs.min() <= found.min() and found.max() <= inputs.max()


@pytest.mark.parametrize("baseline", SAME_CALL)
def test_training_pairs_and_targets_must_fit(baseline, pairs):
    inputs, outputs = pairs
    with pytest.raises(ValueError, match=r"outputs \(29, 4\)"):
        baseline(inputs, outputs[:29], outputs)
    with pytest.raises(ValueError, match=r"targets \(30, 3\)"):
        baseline(inputs, outputs, outputs[:, :3])
    with pytest.raises(ValueError, match="finite"):
        baseline(inputs, outputs, np.full((1, 4), np.nan))


def test_sizes_out_of_range_are_refused(pairs):
    inputs, outputs = pairs
    with pytest.raises(ValueError, match="k must lie between 1 and 30, got 31"):
        baselines.knn_mean(inputs, outputs, outputs, k=31)
    with pytest.raises(ValueError, match="k must lie between 1 and 6, got 0"):
        baselines.pca_floor(inputs, inputs, 0)


@pytest.fixture(scope="module")
def digits():
    """Training digits, their logits, test digits, and the test digits' logits."""
    (x_train, y_train), (x_test, _) = load_mnist()
    forward = tap(pretrained("mlp"), "logits")
    logits = [forward.predict(x, batch_size=1000, verbose=0) for x in (x_train, x_test)]
    return x_train, y_train, logits[0], x_test, logits[1]


@pytest.mark.parametrize(
    ("baseline", "psnr", "ssim"),
    [
        ("mean_image", 11.87, 0.177),
        ("class_mean", 13.04, 0.371),
        ("nearest_neighbor", 13.35, 0.579),
        ("knn_mean", 15.40, 0.600),
        ("ridge", 13.76, 0.424),
    ],
)
def test_floors_that_a_method_has_to_beat_from_the_logits(baseline, psnr, ssim, digits):
    x_train, y_train, outputs, x_test, targets = digits
    if baseline == "class_mean":
        outputs, targets = y_train, targets.argmax(axis=-1)
    found = getattr(baselines, baseline)(x_train, outputs, targets)
    assert metrics.psnr(x_test, found).mean() == pytest.approx(psnr, abs=0.02)
    assert metrics.ssim(x_test, found).mean() == pytest.approx(ssim, abs=0.003)
