"""How good is a reconstruction? One number per image, never one per batch.

All take arrays (N, ...) and answer float64 (N,). Arrays that do not fit each other, are
empty or hold a value that is not finite are a ValueError.

Average the numbers with :func:`mean_and_interval`. To compare two methods on the
same images, average the *differences* of their numbers: the images' own spread
then cancels.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from numpy import ndarray
from scipy.special import stdtrit  # scipy.stats takes half a second to import

CHUNK = 1024  # images measured at once, so that memory stays flat
WINDOW = 7  # pixels, of SSIM
SIGMA = 1e4  # pixels: so wide that tf.image.ssim's Gaussian window is flat
ROUNDING = 1e-5  # how far outside [0, 1] float arithmetic may put a true pixel


def mse(images: ndarray, reconstructions: ndarray) -> ndarray:
    """Mean squared difference per value, for each image or vector.

    The two arrays have the same shape (N, ...), and any range.
    """

    def squared_difference(batch, guesses):
        difference = np.subtract(batch, guesses, dtype="float64")
        return (difference.reshape(len(batch), -1) ** 2).mean(axis=1)

    return _in_chunks(squared_difference, *_check_pair(images, reconstructions))


def psnr(images: ndarray, reconstructions: ndarray) -> ndarray:
    """Peak signal-to-noise ratio in decibels: -10 log10(MSE), for each image.

    Called like :func:`mse`, with true images in [0, 1]; reconstructions may leave that
    range. Higher is better; ``inf`` where the two are identical.
    """
    images, reconstructions = _check_pair(images, reconstructions, unit=True)
    with np.errstate(divide="ignore"):  # identical images: infinitely many decibels
        return -10 * np.log10(mse(images, reconstructions))


def ssim(images: ndarray, reconstructions: ndarray) -> ndarray:
    """Structural similarity (Wang et al. 2004), for each image.

    Compares mean, contrast and correlation in every 7 x 7 window inside the image, all
    pixels alike, for a data range of 1: scikit-image's default, up to the third
    decimal. The 11 x 11 Gaussian that ``tf.image.ssim`` takes sees less of the border
    and gives lower numbers: 0.12 instead of 0.18 for the mean of all digits.

    Called like :func:`psnr`, with images (N, height, width, channels) of at least 7 x 7
    pixels. 1 where the two are identical, 0 or less for unrelated ones.
    """
    images, reconstructions = _check_pair(images, reconstructions, unit=True)
    if images.ndim != 4 or min(images.shape[1:3]) < WINDOW:
        raise ValueError(
            "ssim needs images of shape (N, height, width, channels), at least "
            f"{WINDOW} x {WINDOW} pixels; got {images.shape}. For grey images without "
            "a channel axis pass images[..., None]; for vectors use mse."
        )

    def flat_window(*pair):
        pair = (tf.constant(batch, tf.float32) for batch in pair)
        flat = {"filter_size": WINDOW, "filter_sigma": SIGMA}
        return tf.image.ssim(*pair, max_val=1.0, **flat).numpy()

    return _in_chunks(flat_window, images, reconstructions)


def accuracy(evaluator, images: ndarray, labels: ndarray) -> ndarray:
    """Whether an evaluator names the intended class: 1 or 0 for each image.

    The evaluator is a Keras model or a function from images (N, ...) to scores (N,
    classes), one that no search has seen; labels are integers (N,). Never report it
    alone: a picture of the class mean already scores as high as the inverted network's
    own accuracy.
    """
    images, labels = _check_finite("images", images), np.asarray(labels)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be one integer class per image, shape {images.shape[:1]}; "
            f"got {labels.dtype} of shape {labels.shape}. For one-hot rows pass "
            "labels.argmax(axis=-1)."
        )
    settings = {"training": False} if isinstance(evaluator, keras.Layer) else {}

    def correct(batch, wanted):
        scores = np.asarray(evaluator(tf.constant(batch, tf.float32), **settings))
        if scores.ndim != 2 or not 0 <= wanted.min() <= wanted.max() < scores.shape[1]:
            raise ValueError(
                "the evaluator must give one score per class, shape (N, classes), "
                f"and every label must be one of those classes; got {scores.shape} "
                f"and labels from {wanted.min()} to {wanted.max()}"
            )
        return scores.argmax(axis=1) == wanted

    return _in_chunks(correct, images, labels)


def diversity(solutions: ndarray) -> ndarray:
    """Mean squared difference between any two solutions of the same target.

    Solutions (R, N, ...) are R >= 2 reconstructions of each of N targets, for example
    from R seeds. The mean over their R (R - 1) / 2 pairs is twice the sample variance.
    """
    solutions = _check_finite("solutions", solutions)
    if solutions.ndim < 3 or len(solutions) < 2:
        raise ValueError(
            "solutions must have shape (R, N, ...) with R >= 2 reconstructions of each "
            f"of N targets, such as np.stack makes of them; got {solutions.shape}"
        )

    def spread(batch):
        variance = np.var(batch, axis=1, ddof=1, dtype="float64")
        return 2 * variance.reshape(len(batch), -1).mean(axis=1)

    return _in_chunks(spread, np.moveaxis(solutions, 0, 1))


def mean_and_interval(values: ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Mean of independent numbers, and the half-width of Student's t interval.

    Of at least two numbers (N,), such as one per image or per training seed; the
    interval covers their true mean with a confidence between 0 and 1.
    """
    values = _check_finite("values", values).astype("float64")
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"an interval needs at least two numbers, shape (N,); got {values.shape}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    quantile = stdtrit(len(values) - 1, (1 + confidence) / 2)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(quantile * error)


def _in_chunks(measure, *arrays) -> ndarray:
    """One number per row of the arrays, from ``measure`` on a chunk at a time."""
    starts = range(0, len(arrays[0]), CHUNK)
    parts = [measure(*(a[i : i + CHUNK] for a in arrays)) for i in starts]
    return np.concatenate(parts).astype("float64")


def _check_finite(name: str, values) -> ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "biuf" or values.ndim == 0 or values.size == 0:
        raise ValueError(
            f"{name} must be an array of real numbers, and not empty; got an array of "
            f"{values.dtype} and shape {values.shape}"
        )
    if wrong := np.count_nonzero(~np.isfinite(values)):
        raise ValueError(f"{name} has {wrong} values that are not finite")
    return values


def _check_pair(images, reconstructions, unit: bool = False) -> tuple[ndarray, ndarray]:
    """Two arrays of one shape; with ``unit``, the true images must lie in [0, 1]."""
    images = _check_finite("images", images)
    reconstructions = _check_finite("reconstructions", reconstructions)
    if images.shape != reconstructions.shape or images.ndim < 2:
        raise ValueError(
            "images and reconstructions must have the same shape (N, ...); got "
            f"{images.shape} and {reconstructions.shape}. For one pass image[None]."
        )
    low, high = images.min(), images.max()
    if unit and (low < -ROUNDING or high > 1 + ROUNDING):
        raise ValueError(
            "the true images, the first argument, must lie in [0, 1]; got values "
            f"from {low:g} to {high:g}. Divide pixels of 0 to 255 by 255, or swap "
            "the arguments if the reconstructions came first."
        )
    return images, reconstructions
