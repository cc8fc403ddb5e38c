"""What cannot be known: other inputs with exactly the same output.

The fiber of x is the set of all inputs with the same output. Within the activation
region ("cell") of x, in which a ReLU network (piecewise linear) is affine, it is a
polytope: with a point nearest to any picture, a range of every pixel, random points.
"""

from __future__ import annotations

import keras
import numpy as np

from netinvert.certificates import Certificate
from netinvert.fibers import polytope
from netinvert.fibers.exact import certify, independent
from netinvert.fibers.layers import affine_steps, cell, check_input, pattern
from netinvert.fibers.polytope import Infeasible, Polytope
from netinvert.fibers.reading import Network, first_affine, layers_of, read
from netinvert.inversion import check_count

MARGIN = 1e-6  # from the walls of a cell, so that an exact answer stays inside
HALFWAY = 0.3  # between a face of the fiber and its middle
LEAST_GAIN = 1e-3  # of the distance: what makes another cell worth while

Bounds = tuple[float, float]
UNIT = (0.0, 1.0)


def collision(
    network: Network, x: np.ndarray, toward: np.ndarray, bounds: Bounds = UNIT
) -> Certificate:
    """Find the input closest to a picture that the first layer cannot tell from x.

    The first layer (Dense or Conv2D) has equal values before its activation, so
    everything after it is equal too. The rest is as for :func:`metamer`.
    """
    return metamer(network, x, toward, first_affine(network), bounds)


@polytope.one_thread
def metamer(
    network: Network,
    x: np.ndarray,
    toward: np.ndarray,
    layer: str | None = None,
    bounds: Bounds = UNIT,
    crossings: int = 5,
) -> Certificate:
    """Find an input close to a picture with the same output as x.

    Inside the activation cell of x the answer is the closest there is. Where a wall
    of the cell stands in the way, the search goes on in the cell behind it.

    Parameters
    ----------
    network : keras.Model or sequence of Layer
        Layers that :func:`layers_of` knows, at least up to ``layer``.
    x, toward : arrays (*input_shape)
        The input, and the picture that its twin shall look like.
    layer : str, optional
        The layer whose values are equal; the last when left out: the logits.
    bounds : (low, high)
        The range of every number of an input.
    crossings : int
        How often the search may go on in another cell; with 0 it stays in that of x.

    Returns
    -------
    Certificate
        Its ``inputs`` are x and its metamer.

    Raises
    ------
    ValueError
        If x lies outside the bounds, a shape does not fit, or a Keras model does
        something else than its plain layers, on probes or on the two inputs.
    Infeasible
        If no other input in the bounds has the same values.
    """
    check_count("crossings", crossings, 0)
    layers, x, steps, on, here = around(network, x, layer, bounds)
    toward, shape = check_input(layers, toward, None), x.shape
    if shape != toward.shape:
        raise ValueError(
            f"the picture needs the shape {shape} of x, got {toward.shape}"
        )
    x, toward, name = x.ravel(), toward.ravel(), layers[-1].name
    outputs = here.jacobian @ x + here.offset
    if independent(here.jacobian.T)[1] == x.size:
        raise Infeasible(
            f"no other input in this cell has the same values at {name!r}: the layer "
            f"is injective there, its Jacobian has the full rank {x.size}"
        )
    try:
        found = polytope.nearest(within(here, outputs, None, bounds), toward)
    except (Infeasible, RuntimeError):  # then closer to a wall, where x is
        found = polytope.nearest(within(here, outputs, x, bounds), toward)
    for _ in range(crossings):
        # The best point so far lies on some walls. Behind them it is as good, and
        # perhaps not yet the best.
        crossed = here.walls @ found - here.heights < 2 * MARGIN
        parts = np.split(crossed, np.cumsum([len(units) for units in on])[:-1])
        beyond = [units ^ part for units, part in zip(on, parts, strict=bool(on))]
        there = cell(steps, beyond, x.size)
        reach = (1 - LEAST_GAIN) * np.linalg.norm(found - toward)
        try:
            among = within(there, outputs, None, bounds)
            better = polytope.nearest(among, toward, reach)
        except (Infeasible, RuntimeError):  # or within the margin of being so
            break
        on, here, found = beyond, there, better
    if np.allclose(found, x, rtol=0, atol=MARGIN):
        raise Infeasible(
            f"of all inputs in this cell with the same values at {name!r}, x itself is "
            "the closest to the picture: ask for another"
        )
    proof = certify(layers, steps, on, here.jacobian, x, found, shape, bounds)
    if isinstance(network, keras.Model):  # it must agree, here too
        read(network, layer, proof.inputs)
    return proof


def fiber(
    network: Network, x: np.ndarray, layer: str | None = None, bounds: Bounds = UNIT
) -> Polytope:
    """Return all inputs in the cell of x with the same output: a polytope.

    Its points are flat inputs. Parameters are those of :func:`metamer`.
    """
    _, x, _, _, here = around(network, x, layer, bounds)
    outputs = here.jacobian @ x.ravel() + here.offset
    return within(here, outputs, x.ravel(), bounds)


@polytope.one_thread
def widths(
    network: Network, x: np.ndarray, layer: str | None = None, bounds: Bounds = UNIT
) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest value that each pixel can take.

    The output stays the same, and the input in the cell of x; all other pixels
    may change as well. Parameters are those of :func:`metamer`.

    Returns
    -------
    lowest, highest : float arrays (*input_shape)
    """
    among = fiber(network, x, layer, bounds)
    x = np.asarray(x, "float64")
    return tuple(end.reshape(x.shape) for end in polytope.extremes(among, x.ravel()))


@polytope.one_thread
def samples(
    network: Network,
    x: np.ndarray,
    count: int,
    layer: str | None = None,
    bounds: Bounds = UNIT,
    steps: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Draw inputs at random that have the same output as x, and lie in its cell.

    Parameters
    ----------
    network, x, layer, bounds
        As for :func:`metamer`.
    count, steps, seed : int
        How many; the length of the random walk that ends in each; its beginning.

    Returns
    -------
    float array (count, *input_shape)
        The outputs agree up to rounding in float64.
    """
    count, steps = check_count("count", count), check_count("steps", steps)
    among = fiber(network, x, layer, bounds)
    pictures = np.random.default_rng(seed).uniform(*bounds, (count, np.size(x)))
    # A walk in many dimensions is slow. So each sets out from a place of its own,
    # between the middle and the point nearest to a random picture.
    nearest = [polytope.nearest(among, picture) for picture in pictures]
    starts = HALFWAY * polytope.center(among) + (1 - HALFWAY) * np.array(nearest)
    found = polytope.hit_and_run(among, starts, steps, seed)
    return found.reshape(count, *np.shape(x))


@polytope.one_thread
def split(
    network: Network, inputs: np.ndarray, layer: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split inputs into row-space and null-space parts: seen by a layer, and not.

    Parameters
    ----------
    network, layer
        As for :func:`metamer`.
    inputs : array (N, *input_shape)
        Differences of inputs from a common picture may be split just as well,
        where the layer is before the first ReLU.

    Returns
    -------
    seen, unseen : float arrays (N, *input_shape)
        Their sum is the input. ``seen`` lies in the row space of the Jacobian at
        that input, ``unseen`` in its null space: the output is the same, to first
        order, whatever it is.
    """
    layers = layers_of(network, layer)
    inputs = np.stack([check_input(layers, one, None) for one in inputs])
    steps, seen = affine_steps(layers, inputs.shape[1:]), []
    for x in inputs.reshape(len(inputs), -1):
        jacobian = cell(steps, pattern(steps, x), x.size).jacobian
        rows = polytope.row_space(jacobian)
        seen.append(rows.T @ (rows @ x))
    seen = np.reshape(seen, inputs.shape)
    return seen, inputs - seen


def around(network: Network, x: np.ndarray, layer: str | None, bounds: Bounds):
    """Return layers, x, steps, which units are on at x, and the cell of x."""
    layers = layers_of(network, layer)
    try:
        low, high = map(float, bounds)
        fits = -np.inf < low < high < np.inf  # an endless box proves nothing
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"bounds needs two finite numbers (low, high) with low < high, got {bounds}"
        )
    x = check_input(layers, x, bounds)
    steps = affine_steps(layers, x.shape)
    on = pattern(steps, x.ravel())
    return layers, x, steps, on, cell(steps, on, x.size)


def within(here, outputs, inside: np.ndarray | None, bounds: Bounds) -> Polytope:
    """Return the inputs of a cell that have the given outputs.

    They keep clear of the walls by a margin, or by half of what a given point does.
    """
    margin = MARGIN * here.walls.any(axis=1)
    if inside is not None:
        margin = np.clip((here.walls @ inside - here.heights) / 2, 0, MARGIN)
    order, rank = independent(here.jacobian.T)  # equations that say the same go
    kept = order[:rank]
    rows = np.concatenate([here.jacobian[kept], here.walls])
    values = np.concatenate([(outputs - here.offset)[kept], here.heights + margin])
    return Polytope(rows, values, np.arange(len(rows)) < rank, *bounds)
