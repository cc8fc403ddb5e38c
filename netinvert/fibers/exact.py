"""From nearly equal to equal: the last pixels of a twin, solved for in fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from flint import fmpq, fmpz_mat
from scipy.linalg import qr

from netinvert.certificates import Certificate, fingerprint
from netinvert.fibers.layers import Affine, Bend
from netinvert.fibers.polytope import Infeasible

GRID = 2**30  # pixels that are not solved for are rounded to multiples of 1/GRID
ROOM = 1e-4  # a pixel that is solved for must have this much room on both sides
RANK = 1e-9  # relative to the largest pivot


class Whole(NamedTuple):
    """An affine map in integers: (x @ matrix + bias) / scale."""

    numbers: list[list[int]]  # the matrix, row by row
    matrix: fmpz_mat
    bias: list[int]
    scale: int


def certify(layers, steps, on, jacobian, x, found, shape, bounds) -> Certificate:
    """Make the output of a twin exactly that of x, and write the certificate.

    As many pixels as there are independent equations are solved for by python-flint;
    they move by about a rounding error. ``on`` and ``jacobian`` are of the cell of
    ``found`` (n,). Infeasible if too few pixels have room, or a wall was crossed.
    """
    low, high = bounds
    columns, rows = pivots(jacobian, (found > low + ROOM) & (found < high - ROOM))
    below = math.lcm(GRID, *(v.as_integer_ratio()[1] for v in x.tolist()))
    first = [p * (below // q) for p, q in map(float.as_integer_ratio, x.tolist())]
    second = [round(v * GRID) * (below // GRID) for v in found.tolist()]
    whole = [step if isinstance(step, Bend) else as_integers(step) for step in steps]
    wanted, scale, _ = exact(whole, None, first, below, [])
    reached, scale, directions = exact(whole, on, second, below, columns)
    # directions and outputs are integers over scale and scale * below.
    system = fmpz_mat([[way[row] for way in directions] for row in rows])
    missing = fmpz_mat([[wanted[row] - reached[row]] for row in rows])
    try:
        changes = system.solve(missing).entries() if rows else []
    except ZeroDivisionError as error:
        raise RuntimeError(
            "the equations are dependent in exact arithmetic, though not in floating "
            "point; ask for another picture"
        ) from error
    twin = [Fraction(value, below) for value in second]
    for place, change in zip(columns, changes, strict=True):
        exactly = fmpq(second[place], below) + change / below
        twin[place] = Fraction(int(exactly.p), int(exactly.q))
    values = tuple(Fraction(value, scale * below) for value in wanted)
    check(whole, twin, values, bounds)
    first = tuple(Fraction(value, below) for value in first)
    twins, box = (first, tuple(twin)), (Fraction(low), Fraction(high))
    name, network = layers[-1].name, fingerprint(layers)
    return Certificate(name, values, *twins, tuple(shape), *box, network)


def check(whole, twin: list[Fraction], values: tuple, bounds) -> None:
    """Refuse a twin that has left the bounds or its cell while it was mended."""
    below = math.lcm(*(pixel.denominator for pixel in twin))
    numerators = [pixel.numerator * (below // pixel.denominator) for pixel in twin]
    reached, scale, _ = exact(whole, None, numerators, below, [])
    pairs = zip(reached, values, strict=True)
    same = all(value == wanted * scale * below for value, wanted in pairs)
    if not same or min(twin) < bounds[0] or max(twin) > bounds[1]:
        raise Infeasible(
            "the twin that was found lies on a wall, by its last digits on the wrong "
            "side. Move x a little, or ask for another picture"
        )


def pivots(jacobian: np.ndarray, room: np.ndarray) -> tuple[list[int], list[int]]:
    """Choose pixels with room, and as many outputs, that can mend each other."""
    free = np.flatnonzero(room)
    order, rank = independent(jacobian[:, free])
    if rank < independent(jacobian)[1]:
        raise Infeasible(
            f"of {room.size} numbers only {len(free)} lie well inside the bounds: too "
            "few to make the outputs exactly equal. Ask for another picture"
        )
    columns = free[order[:rank]]
    rows, _ = independent(jacobian[:, columns].T)
    return columns.tolist(), rows[:rank].tolist()


def independent(matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """Order the columns of a matrix, the most independent first; return its rank."""
    if not matrix.size:
        return np.arange(matrix.shape[1]), 0
    triangle, order = qr(matrix, mode="r", pivoting=True)
    sizes = abs(np.diag(triangle))
    return order, int((sizes > RANK * max(sizes[0], 1e-300)).sum())


def exact(whole, on, numerators: list[int], below: int, columns: list[int]) -> tuple:
    """Compute outputs and chosen columns of the Jacobian in a cell, in integers.

    Without a cell, by the exact sign of every unit. The values are above the
    denominator ``scale * below``, the directions, one per column, above ``scale``.
    """
    values = fmpz_mat(1, len(numerators), numerators)
    directions, scale, remaining = None, 1, iter(on or [])
    for step in whole:
        if isinstance(step, Bend):
            p, q = float(step.slope).as_integer_ratio()
            units = [v > 0 for v in values.entries()] if on is None else next(remaining)
            factors = [q if unit else p for unit in units]
            values, directions = (scaled(m, factors) for m in (values, directions))
            scale *= q
            continue
        if directions is None:
            rows = [step.numbers[i] for i in columns]
            directions = fmpz_mat(rows or [[0] * len(step.bias)])
        else:
            directions = directions * step.matrix
        constant = [b * scale * below for b in step.bias]
        values = values * step.matrix + fmpz_mat(1, len(constant), constant)
        scale *= step.scale
    return [int(v) for v in values.entries()], scale, directions.tolist()


def scaled(matrix: fmpz_mat, factors: list[int]) -> fmpz_mat:
    """Multiply every column by its factor."""
    return fmpz_mat([[v * f for v, f in zip(row, factors)] for row in matrix.tolist()])


def as_integers(step: Affine) -> Whole:
    """Write the weights of a step as integers above one denominator."""
    weights = np.vstack([step.matrix, step.bias])
    mantissas, exponents = np.frexp(weights)
    # 24 bits hold a float32; whatever needs more gets the 53 of a float64.
    short = np.array_equal(weights, weights.astype("float32"))
    smallest = exponents[mantissas != 0].min(initial=1)
    power = max(0, (24 if short else 53) - int(smallest))
    numbers = np.ldexp(weights, power)
    whole = abs(numbers).max() < 2.0**62  # else Python's integers, one by one
    numbers = numbers.astype("int64" if whole else object).tolist()
    if not whole:
        numbers = [[int(v) for v in row] for row in numbers]
    *rows, bias = numbers
    return Whole(rows, fmpz_mat(rows), bias, 2**power * step.divisor)
