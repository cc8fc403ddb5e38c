"""Rank per layer ("ledger"): what each layer of a network can still tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from scipy.linalg import qr

from netinvert.certificates import Layer
from netinvert.fibers.layers import Bend, affine_steps, check_input
from netinvert.fibers.polytope import one_thread
from netinvert.fibers.reading import Network, layers_of, steps_of

RANK = 1e-9  # relative to the largest pivot
WALL = 1e-12  # a point closer to a wall lies on it, as far as rounding can tell


class Ledger(NamedTuple):
    """What is lost on the way through a network, layer by layer.

    ``layers`` are L names, ``ranks`` (L, N) the rank of the Jacobian at each of N
    inputs, ``invisible`` (L, N) the data's share of variance in its null space there.
    """

    layers: list[str]
    ranks: np.ndarray
    invisible: np.ndarray

    def __str__(self) -> str:
        lines = ["  rank (least-most)  invisible"]
        for ranks, share in zip(self.ranks, self.invisible, strict=True):
            rank = f"{ranks.mean():.1f} ({ranks.min()}-{ranks.max()})"
            lines.append(f"  {rank:>17}  {share.mean():9.0%}")
        wide = max(map(len, self.layers))
        names = ("", *self.layers)
        return "\n".join(f"{a:{wide}}{b}" for a, b in zip(names, lines, strict=True))


@one_thread
def ledger(network: Network, inputs: np.ndarray, points: int = 32) -> Ledger:
    """Keep the books of a ReLU network.

    Parameters
    ----------
    network : keras.Model or sequence of Layer
        Layers that :func:`netinvert.fibers.layers_of` knows. A softmax at the end
        is booked where the model has one.
    inputs : array (M, *input_shape)
        Data: its variance is shared out.
    points : int
        At how many of the inputs, the first N, the Jacobian is looked at.

    Raises
    ------
    ValueError
        If a layer is of another kind, an input has another shape or is not finite,
        or all inputs are the same, so that there is no variance to share out.

    Warns
    -----
    UserWarning
        If a point lies on a wall between activation regions, as blank paper does in
        a network without biases: what is booked holds where the unit is off.
    """
    inputs, layers = np.asarray(inputs, "float64"), layers_of(network)
    check_data(layers, inputs, points)
    steps = affine_steps(layers, inputs.shape[1:])
    values = inputs.reshape(len(inputs), -1)
    points = min(points, len(values))
    # The rows of the first layer span all that any layer sees: its coordinates in
    # an orthogonal basis of them do the same with smaller matrices.
    basis = qr(steps[0].matrix, mode="economic")[0]
    centred = values - values.mean(axis=0)
    total, spread = (centred**2).sum(), centred @ basis
    spread = spread.T @ spread
    jacobians, books, walled = basis[None], {}, np.zeros(points, bool)
    for step in steps:
        if isinstance(step, Bend):
            walled |= on_walls(values[:points], jacobians)
            factors = np.where(values[:points] > 0, 1.0, step.slope)
            jacobians = factors[:, :, None] * jacobians
        else:
            jacobians = step.matrix.T @ jacobians / step.divisor
        values = step(values)
        books[step.name] = look(jacobians, spread, points)
    if walled.any():
        warnings.warn(
            f"{walled.sum()} of {points} points lie on a wall, where a unit is at 0 "
            "exactly and turns on in one direction: there the network has no Jacobian, "
            "and the books hold on one side only. Move the inputs a little at random, "
            "or give the network biases.",
            stacklevel=3,
        )
    keras_steps = [*steps_of(network)] if isinstance(network, keras.Model) else []
    if keras_steps and keras_steps[-1].rest is keras.activations.softmax:
        # Each group loses the sum of its directions.
        shape = (len(jacobians), -1, layers[-1].shape[-1], len(spread))
        groups = jacobians.reshape(shape)
        groups = groups - groups.mean(axis=2, keepdims=True)
        books["softmax"] = look(groups.reshape(jacobians.shape), spread, points)
    ranks, variances = np.moveaxis(list(books.values()), -1, 0)
    invisible = np.clip(1 - variances / total, 0, 1)
    return Ledger(list(books), ranks.astype(int), invisible)


def check_data(layers: Sequence[Layer], inputs: np.ndarray, points: int) -> None:
    """Refuse data in which there is nothing to count."""
    if inputs.ndim < 2 or len(inputs) < 2 or points < 1:
        raise ValueError(
            "the books are kept over two inputs at least, (M, *input_shape), and one "
            f"point at least; got shape {inputs.shape} and points={points}"
        )
    for one in (inputs.min(axis=0), inputs.max(axis=0)):  # finite if all inputs are
        check_input(layers, one, None)
    if not np.ptp(inputs, axis=0).any():
        raise ValueError("all inputs are the same: there is no variance to share out")


def look(jacobians: np.ndarray, spread: np.ndarray, points: int) -> np.ndarray:
    """Return the rank of each Jacobian and the variance in its row space (N, 2)."""
    found = []
    for jacobian in jacobians:
        rows = jacobian[np.any(jacobian, axis=1)]
        basis, triangle, _ = qr(rows.T, mode="economic", pivoting=True)
        sizes = abs(np.diag(triangle))
        seen = basis[:, sizes > RANK * sizes.max(initial=0)]
        found.append((seen.shape[1], (seen * (spread @ seen)).sum()))
    return np.broadcast_to(found, (points, 2))


def on_walls(values: np.ndarray, jacobians: np.ndarray) -> np.ndarray:
    """Say for each point whether a unit at 0 can turn on: bool (N,)."""
    slopes = np.linalg.norm(jacobians, axis=2)
    return ((abs(values) <= WALL * slopes) & (slopes > 0)).any(axis=1)
