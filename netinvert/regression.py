"""A guess from the output alone: ridge regression on random features.

A search that starts at a good guess needs neither many steps nor restarts. The
guess costs one small linear system and is found once, for all targets to come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RANDOM_FEATURES = 500  # twice as many guess hardly better and take four times as long
PENALTIES = np.logspace(-9, 0, 19)  # as shares of the largest eigenvalue
FAINTEST = 1e-2  # a unit that hardly ever fires is not blown up beyond this


@dataclass(frozen=True)
class Regression:
    """A function from outputs (N, ...) to answers (N, k); see :func:`fit_regression`.

    Attributes
    ----------
    middle, spread : float64 array (p,)
        Of the outputs, flattened to p numbers, on which it was fitted.
    directions : float64 array (p + 1, RANDOM_FEATURES)
        Of the random features, and their offsets in the last row.
    weights : float64 array (1 + p + RANDOM_FEATURES, k)
        The first row is the intercept.
    low, high : float64 array (k,)
        Range of the answers it was fitted on, which its own never leave.
    """

    middle: np.ndarray
    spread: np.ndarray
    directions: np.ndarray
    weights: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __call__(self, outputs: np.ndarray) -> np.ndarray:
        """Answers (N, k) for outputs (N, ...)."""
        features = expand(outputs, self.middle, self.spread, self.directions)
        answers = self.weights[0] + features @ self.weights[1:]
        return np.clip(answers, self.low, self.high)


def fit_regression(outputs: np.ndarray, answers: np.ndarray, seed: int) -> Regression:
    """Learn to guess answers from a network's outputs.

    Linear in the standardised outputs and in ReLU features of them along random
    directions (Rahimi & Recht 2008). The penalty is chosen by generalised
    cross-validation (Golub, Heath & Wahba 1979), for which one decomposition
    serves all penalties.

    Parameters
    ----------
    outputs : array (M, ...)
    answers : array (M, k)
    seed : int
        Of the random directions.
    """
    flat = outputs.reshape(len(outputs), -1).astype("float64")
    middle, spread = flat.mean(axis=0), flat.std(axis=0)
    spread = np.maximum(spread, FAINTEST * spread.max()) if spread.any() else spread + 1
    rng = np.random.default_rng(seed)
    count = flat.shape[1]
    directions = np.vstack(
        [
            rng.standard_normal((count, RANDOM_FEATURES)) / np.sqrt(count),
            rng.uniform(-1, 1, (1, RANDOM_FEATURES)),
        ]
    )
    features = expand(flat, middle, spread, directions)
    weights = ridge(features, answers.astype("float64"))
    low, high = answers.min(axis=0), answers.max(axis=0)
    return Regression(middle, spread, directions, weights, low, high)


def expand(outputs, middle, spread, directions) -> np.ndarray:
    """Standardised outputs and their random features, (N, p + RANDOM_FEATURES)."""
    flat = outputs.reshape(len(outputs), -1).astype("float64")
    scaled = (flat - middle) / spread
    random = np.maximum(scaled @ directions[:-1] + directions[-1], 0)
    return np.hstack([scaled, random / np.sqrt(RANDOM_FEATURES)])


def ridge(
    features: np.ndarray, answers: np.ndarray, penalties: np.ndarray = PENALTIES
) -> np.ndarray:
    """Weights (1 + q, k) of the ridge regression whose penalty predicts best."""
    mean, center = features.mean(axis=0), answers.mean(axis=0)
    centered = features - mean
    energy, axes = np.linalg.eigh(centered.T @ centered)
    energy = np.maximum(energy, 0)
    covariance = axes.T @ (centered.T @ (answers - center))
    total, lowest = np.sum((answers - center) ** 2), np.inf
    penalties = penalties * (energy.max() or 1.0)  # 1: outputs that never vary
    best = penalties[-1]
    for penalty in penalties:
        gain = (energy + 2 * penalty) / (energy + penalty) ** 2
        error = total - np.sum(gain @ covariance**2)
        freedom = 1 + np.sum(energy / (energy + penalty))
        if freedom >= len(answers):
            continue  # as many parameters as examples: nothing left to validate on
        score = error / (1 - freedom / len(answers)) ** 2
        if score < lowest:
            lowest, best = score, penalty
    slopes = axes @ (covariance / (energy + best)[:, np.newaxis])
    return np.vstack([center - mean @ slopes, slopes])
