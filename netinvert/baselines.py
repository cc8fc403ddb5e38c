"""What every method has to beat: reconstructions that search for nothing.

All are called alike, with training inputs (M, ...), the network's outputs for them
(M, ...) and the targets to invert (N, ...), and answer float32 arrays (N, ...) shaped
like the inputs. Distances and regressions are taken in the space of the outputs,
flattened. Arrays that do not fit each other, or are not finite, are a ValueError.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

CHUNK = 512  # targets compared with the whole training set at once
FAINTEST = 1e-2  # outputs that hardly ever vary are not blown up beyond this share
PENALTIES = np.logspace(-7, 1, 33)


def blank(inputs: ndarray, outputs: ndarray, targets: ndarray) -> ndarray:
    """Answer with zeros."""
    return np.zeros_like(mean_image(inputs, outputs, targets))


def mean_image(inputs: ndarray, outputs: ndarray, targets: ndarray) -> ndarray:
    """Answer with the mean of the training inputs, whatever the target."""
    inputs, _, targets = _check(inputs, outputs, targets)
    return np.repeat(inputs.mean(axis=0, keepdims=True), len(targets), axis=0)


def class_mean(inputs: ndarray, labels: ndarray, target_labels: ndarray) -> ndarray:
    """Answer with the mean of the training inputs of the same class.

    Called with the classes of the inputs, integers (M,), and those that the targets
    name, (N,), such as ``logits.argmax(axis=-1)``; each must have a training input.
    """
    inputs, labels, target_labels = _check(inputs, labels, target_labels)
    if labels.shape[1] != 1 or not np.isin(target_labels, labels).all():
        raise ValueError(
            "class_mean needs one label per input and target, each found among the "
            "training labels; for scores pass scores.argmax(axis=-1)"
        )
    classes, place = np.unique(target_labels[:, 0], return_inverse=True)
    means = [inputs[labels[:, 0] == one].mean(axis=0) for one in classes]
    return np.stack(means)[place]


def nearest_neighbor(inputs: ndarray, outputs: ndarray, targets: ndarray) -> ndarray:
    """Answer with the training input whose output is closest to the target."""
    return knn_mean(inputs, outputs, targets, k=1)


def knn_mean(
    inputs: ndarray, outputs: ndarray, targets: ndarray, k: int = 10
) -> ndarray:
    """Answer with the mean of the k training inputs with the closest outputs."""
    inputs, outputs, targets = _check(inputs, outputs, targets)
    _check_k(k, len(inputs))
    answer = []
    for start in range(0, len(targets), CHUNK):
        # |a - b|^2 without |a|^2, which is the same for all neighbors of a
        closeness = targets[start : start + CHUNK] @ outputs.T
        distance = np.sum(outputs**2, axis=1) - 2 * closeness
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        answer.append(inputs[nearest].mean(axis=1))
    return np.concatenate(answer)


def ridge(inputs: ndarray, outputs: ndarray, targets: ndarray) -> ndarray:
    """Answer with the best linear function of the target, kept from overfitting.

    One penalty for all pixels, chosen by generalized cross-validation (Golub, Heath
    and Wahba 1979). Values stay in the range of the training inputs.
    """
    inputs, outputs, targets = _check(inputs, outputs, targets)
    flat = inputs.reshape(len(inputs), -1).astype("float64")
    weights = ridge_weights(outputs, flat, PENALTIES)
    return _inside(weights[0] + targets @ weights[1:], inputs)


def pca_floor(inputs: ndarray, images: ndarray, k: int) -> ndarray:
    """Answer with the projection of the true images on k principal components.

    Not a rival, since it sees the true images (N, ...): it tells how good k numbers
    can be if they are spent linearly. k lies between 1 and the number of pixels, or
    of training inputs if that is less; values stay in the range of these.
    """
    inputs, flat, images_flat = _check(inputs, inputs, images)
    _check_k(k, min(flat.shape))
    middle = flat.mean(axis=0)
    _, vectors = np.linalg.eigh((flat - middle).T @ (flat - middle))
    largest = vectors[:, -k:]  # eigh sorts from small to large
    return _inside((images_flat - middle) @ largest @ largest.T + middle, inputs)


def ridge_weights(features: ndarray, answers: ndarray, penalties: ndarray) -> ndarray:
    """Weights (1 + q, k) of the ridge regression whose penalty predicts best.

    Penalties are shares of the features' largest eigenvalue.
    """
    mean, center = features.mean(axis=0), answers.mean(axis=0)
    centered = features - mean
    energy, axes = np.linalg.eigh(centered.T @ centered)
    energy = np.maximum(energy, 0)
    covariance = axes.T @ (centered.T @ (answers - center))
    total = np.sum((answers - center) ** 2)
    penalties = penalties * (energy.max() or 1.0)  # 1: outputs that never vary

    def score(penalty):
        """The squared error to expect of examples that were left out."""
        gain = (energy + 2 * penalty) / (energy + penalty) ** 2
        error = total - np.sum(gain @ covariance**2)
        freedom = 1 + np.sum(energy / (energy + penalty))
        if freedom >= len(answers):  # nothing left to validate on
            return np.inf
        return error / (1 - freedom / len(answers)) ** 2

    best = min(penalties[::-1], key=score)  # the largest, where none can be told
    slopes = axes @ (covariance / (energy + best)[:, np.newaxis])
    return np.vstack([center - mean @ slopes, slopes])


def center_and_spread(outputs: ndarray) -> tuple[ndarray, ndarray]:
    """Mean and standard deviation of flat outputs (M, p), the latter never tiny."""
    center, spread = outputs.mean(axis=0), outputs.std(axis=0)
    return center, np.maximum(spread, FAINTEST * spread.max() or 1.0)


def _check(inputs, outputs, targets) -> tuple[ndarray, ndarray, ndarray]:
    """Inputs as float32; outputs and targets flattened, as float64."""
    inputs, outputs, targets = map(np.asarray, (inputs, outputs, targets))
    fits = inputs.ndim and outputs.ndim and outputs.shape[1:] == targets.shape[1:]
    if not fits or len(inputs) != len(outputs) or 0 in (len(inputs), targets.size):
        raise ValueError(
            "a baseline needs training pairs, one output per input, and targets "
            f"shaped like the outputs; got inputs {inputs.shape}, outputs "
            f"{outputs.shape} and targets {targets.shape}"
        )
    if not all(np.isfinite(values).all() for values in (inputs, outputs, targets)):
        raise ValueError("inputs, outputs and targets must be finite numbers")
    flat = [a.reshape(len(a), -1).astype("float64") for a in (outputs, targets)]
    return inputs.astype("float32"), *flat


def _inside(answer: ndarray, inputs: ndarray) -> ndarray:
    """Shape the answers like inputs and keep them in the range of the inputs."""
    clipped = np.clip(answer, inputs.min(), inputs.max())
    return clipped.astype("float32").reshape(-1, *inputs.shape[1:])


def _check_k(k: int, largest: int) -> None:
    if not 1 <= k <= largest:
        raise ValueError(f"k must lie between 1 and {largest}, got {k}")
