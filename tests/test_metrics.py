"""What each metric says of cases whose answer is known beforehand."""

import keras
import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from netinvert import metrics


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 28, 28, 1)).astype("float32")


@pytest.fixture
def noisy(images):
    noise = np.random.default_rng(1).normal(0, 0.1, images.shape)
    return (images + noise).astype("float32")


def test_mse_is_one_number_per_image_on_images_and_vectors():
    truth = np.zeros((3, 2, 2, 1))
    guess = truth + np.array([0.0, 0.5, 2.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(metrics.mse(truth, guess), [0, 0.25, 4])
    np.testing.assert_allclose(metrics.mse([[0.0, 0.0]], [[3.0, 4.0]]), [12.5])


def test_mse_of_bytes_does_not_wrap_around():
    dark, bright = np.zeros((1, 4), "uint8"), np.full((1, 4), 255, "uint8")
    np.testing.assert_allclose(metrics.mse(dark, bright), [255.0**2])


def test_a_tenfold_smaller_difference_is_worth_20_decibels(images):
    coarse = metrics.psnr(images, images + 0.1)
    fine = metrics.psnr(images, images + 0.01)
    np.testing.assert_allclose(coarse, 20, atol=1e-3)
    np.testing.assert_allclose(fine - coarse, 20, atol=1e-3)


def test_identical_images_have_infinite_psnr_and_ssim_one(images):
    assert np.isposinf(metrics.psnr(images, images)).all()
    np.testing.assert_allclose(metrics.ssim(images, images), 1, atol=1e-6)


def test_ssim_is_the_published_formula_over_flat_windows(images, noisy):
    def window_mean(a):
        inside = uniform_filter(a.astype("float64"), size=(1, 7, 7, 1))
        return inside[:, 3:-3, 3:-3]

    mean_x, mean_y = window_mean(images), window_mean(noisy)
    variance_x = window_mean(images.astype("float64") ** 2) - mean_x**2
    variance_y = window_mean(noisy.astype("float64") ** 2) - mean_y**2
    covariance = window_mean(images.astype("float64") * noisy) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
    expected = (luminance * structure).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(metrics.ssim(images, noisy), expected, atol=2e-5)


def test_ssim_of_a_negative_image_is_below_zero(images):
    assert (metrics.ssim(images, 1 - images) < -0.5).all()


@pytest.mark.parametrize("measure", [metrics.mse, metrics.psnr, metrics.ssim])
def test_the_number_of_one_image_does_not_depend_on_chunks(
    measure, images, noisy, monkeypatch
):
    whole = measure(images, noisy)
    monkeypatch.setattr(metrics, "CHUNK", 2)
    np.testing.assert_allclose(measure(images, noisy), whole, rtol=1e-6)
    assert whole.shape == (5,)


def first_pixels_as_scores():
    """An evaluator that reads the three class scores off the first three pixels."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, inputs[:, :3])


def test_accuracy_is_one_exactly_where_the_evaluator_names_the_label():
    images = np.eye(4, dtype="float32")[[0, 1, 2]]
    correct = metrics.accuracy(first_pixels_as_scores(), images, np.array([0, 2, 2]))
    np.testing.assert_array_equal(correct, [1, 0, 1])


def test_accuracy_refuses_one_hot_labels_and_unknown_classes():
    images = np.eye(4, dtype="float32")[:3]
    with pytest.raises(ValueError, match="argmax"):
        metrics.accuracy(first_pixels_as_scores(), images, np.eye(3, dtype=int))
    with pytest.raises(ValueError, match="labels from 0 to 7"):
        metrics.accuracy(first_pixels_as_scores(), images, np.array([0, 1, 7]))


def test_diversity_is_the_mean_over_pairs(images):
    solutions = np.stack([images, images + 0.5, images + 1.0])
    pairs = (0.5**2 + 1.0**2 + 0.5**2) / 3
    np.testing.assert_allclose(metrics.diversity(solutions), pairs, rtol=1e-5)
    np.testing.assert_array_equal(metrics.diversity(np.stack([images, images])), 0)


def test_diversity_needs_two_solutions(images):
    with pytest.raises(ValueError, match="R >= 2"):
        metrics.diversity(images[None])


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(3.0, 2.0, (1000, 8))
    intervals = [metrics.mean_and_interval(sample) for sample in samples]
    covered = np.mean([abs(mean - 3.0) <= half for mean, half in intervals])
    assert 0.93 < covered < 0.97


def test_a_wider_confidence_gives_a_wider_interval():
    values = [1.0, 2.0, 4.0]
    mean, narrow = metrics.mean_and_interval(values, confidence=0.5)
    assert mean == pytest.approx(7 / 3)
    assert 0 < narrow < metrics.mean_and_interval(values, confidence=0.95)[1]


@pytest.mark.parametrize("measure", [metrics.mse, metrics.psnr, metrics.ssim])
def test_metrics_refuse_what_they_cannot_measure(measure, images):
    broken = images.copy()
    broken[2, 3, 4] = np.nan
    with pytest.raises(ValueError, match="1 values that are not finite"):
        measure(images, broken)
    with pytest.raises(ValueError, match=r"\(5, 28, 28, 1\) and \(4, 28, 28, 1\)"):
        measure(images, images[:4])
    with pytest.raises(ValueError, match="empty"):
        measure(images[:0], images[:0])


def test_true_images_outside_the_data_range_are_refused(images, noisy):
    for measure in metrics.psnr, metrics.ssim:
        with pytest.raises(ValueError, match="Divide pixels of 0 to 255 by 255"):
            measure(images * 255, images * 255)
        assert np.isfinite(measure(images, noisy)).all()  # a guess may leave [0, 1]


def test_ssim_refuses_vectors_and_images_without_channels(images):
    for shape in (5, 784), (5, 28, 28):
        flat = images.reshape(shape)
        with pytest.raises(ValueError, match="height, width, channels"):
            metrics.ssim(flat, flat)


def test_an_interval_refuses_infinite_and_single_numbers():
    with pytest.raises(ValueError, match="not finite"):
        metrics.mean_and_interval([20.0, np.inf])
    with pytest.raises(ValueError, match="at least two"):
        metrics.mean_and_interval([20.0])
