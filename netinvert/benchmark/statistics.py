"""How sure is a mean? Intervals by the bootstrap, paired over the same images.

Two methods that answer the same targets are compared by the *differences* of their
numbers, image by image: what makes an image hard for both then cancels.
"""

from __future__ import annotations

import functools

import numpy as np

RESAMPLES = 2000
SEED = 0


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Say between which numbers the mean lies, by a bootstrap (Efron 1979).

    Images are drawn again, with replacement. Where there are several training
    seeds, each answers the same images, and an image is drawn with all its answers.
    Seeds are too few to be drawn again, which would make the interval too short:
    the deviation of their mean is drawn from Student's t instead.

    Parameters
    ----------
    values : array (N,) or (S, N)
        One number per image, or per training seed and image; for a comparison,
        the differences between two methods.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    low, high : float
        With one training seed they speak of that network, and of any image; with
        several, of any network trained like these.

    Raises
    ------
    ValueError
        If there are fewer than two images, a value is not finite, or the
        confidence is out of range.
    """
    values = np.atleast_2d(np.asarray(values, "float64"))
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(
            "an interval needs finite numbers of at least two images, shape (N,) or "
            f"(S, N) for S training seeds; got {values.shape}, of which "
            f"{np.count_nonzero(~np.isfinite(values))} are not finite"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    seeds, images = values.shape
    means = shares(images) @ values.mean(axis=0)
    if seeds > 1:
        spread = values.mean(axis=1).std(ddof=1) / np.sqrt(seeds)
        deviation = np.random.default_rng(SEED).standard_t(seeds - 1, RESAMPLES)
        means = means + spread * deviation
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@functools.lru_cache(maxsize=4)
def shares(images: int) -> np.ndarray:
    """How often each of the images is drawn, over their number: (RESAMPLES, images)."""
    random = np.random.default_rng(SEED)
    equal = np.full(images, 1 / images)
    return random.multinomial(images, equal, RESAMPLES) / images
