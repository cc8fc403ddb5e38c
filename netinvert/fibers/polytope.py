"""Walks in a polytope: nearest points, extreme values and random points."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import clarabel
import numpy as np
from scipy import sparse
from scipy.optimize import linprog
from threadpoolctl import ThreadpoolController

MOST_STEPS = 100
MOST_HALVINGS = 30  # of one step; more would change nothing but rounding
TOLERANCE = 1e-9  # of a row of length 1
ROUNDING = 1e-13  # relative, in the value of the dual
SOFT, HARD = 1e-8, 1e-10  # damping of Newton's steps: at first, and the least
FAR = 10.0  # where the point lies, outside [0, 1], that pulls at a coordinate
TOGETHER = 8  # coordinates pulled at once
TOUCHING = 1e-7

# Matrices of a hundred rows are factored in a fraction of a millisecond. Shared out
# over threads, they wait for each other: sixty times as long on a busy computer.
one_thread = ThreadpoolController().wrap(limits=1, user_api="blas")


class Infeasible(ValueError):
    """No input fulfils what was asked."""


class Polytope(NamedTuple):
    """Points x in [low, high]^n with rows @ x = values, or >= where not equal.

    ``rows`` (k, n), ``values`` (k,) and ``equal`` (k,) bool.
    """

    rows: np.ndarray
    values: np.ndarray
    equal: np.ndarray
    low: float
    high: float


def nearest(polytope: Polytope, target: np.ndarray, reach=np.inf) -> np.ndarray:
    """Return the point of a polytope that is closest to a target.

    A projected Newton method (Bertsekas 1982) on the dual, which is concave,
    piecewise quadratic, and has one variable per row, its price: the point is what
    remains of the target, moved along the rows by their prices and cut off at the
    box. With more rows than numbers the dual is the larger problem, and many walls
    nearly coincide: then, or where it does not settle, :func:`nearest_inside`.

    Infeasible if there is none within ``reach``: the dual proves it, whose value is
    never above half the squared distance. RuntimeError if neither method settles.
    """
    lengths = np.linalg.norm(polytope.rows, axis=1)
    lengths[lengths == 0] = 1
    rows, values = polytope.rows / lengths[:, None], polytope.values / lengths
    equal, low, high = polytope.equal, polytope.low, polytope.high

    def state(prices):
        point = np.clip(target + prices @ rows, low, high)
        gap = values - rows @ point
        return point, gap, ((point - target) ** 2).sum() / 2 + prices @ gap

    corner = np.linalg.norm(np.maximum(abs(target - low), abs(target - high)))
    ceiling = (min(corner, reach) ** 2 / 2) * (1 + 1e-6) + 1e-6
    unit = max(1, abs(target).max())
    prices, damping = np.zeros(len(rows)), SOFT
    point, gap, height = state(prices)
    for _ in range(MOST_STEPS if len(rows) <= len(target) else 0):
        wrong = np.abs(np.where(equal, gap, np.maximum(gap, -prices))).max(initial=0)
        if wrong < TOLERANCE * unit:
            return point
        if height > ceiling:
            raise Infeasible(no_point(polytope, reach < corner))
        active = equal | (prices > 0) | (gap > 0)
        inside = rows[active][:, (point > low) & (point < high)]
        square = inside @ inside.T
        square[np.diag_indices_from(square)] += damping
        step = np.zeros(len(rows))
        step[active] = np.linalg.solve(square, gap[active])
        for halvings in range(MOST_HALVINGS):
            new = prices + step / 2**halvings
            new = np.where(equal, new, np.maximum(new, 0))
            trial = state(new)
            gain = 1e-4 * gap @ (new - prices) - ROUNDING * (1 + abs(height))
            if trial[2] >= height + gain:
                break
        damping = np.clip(damping * 10 if halvings else damping / 3, HARD, 1)
        prices, (point, gap, height) = new, trial
    point = nearest_inside(Polytope(rows, values, equal, low, high), target)
    if point is None and linear_program(polytope, np.zeros(len(target))).status != 2:
        raise RuntimeError(
            "the nearest point was not found, though there may be one. Ask for another "
            "picture, or for a layer with fewer values"
        )
    if point is None or np.linalg.norm(point - target) > reach:
        raise Infeasible(no_point(polytope, point is not None))
    return point


def no_point(polytope: Polytope, limited: bool) -> str:
    count, where = polytope.equal.sum(), " within reach" if limited else ""
    return (
        f"no input in [{polytope.low:g}, {polytope.high:g}]{where} fulfils all {count} "
        f"equations and {len(polytope.equal) - count} inequalities"
    )


def linear_program(polytope: Polytope, cost: np.ndarray):
    """Minimize cost @ x in a polytope with SciPy's HiGHS."""
    rows, values, equal, low, high = polytope
    above = {"A_ub": -rows[~equal], "b_ub": -values[~equal]}
    on = {"A_eq": rows[equal], "b_eq": values[equal]}
    return linprog(cost, **above, **on, bounds=(low, high))


def extremes(polytope: Polytope, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest value of every coordinate.

    A point found by pulling at some coordinates is a witness for all: what touches
    the box there need not be looked at again. ``start`` (n,) is any point inside.
    """
    everything = np.arange(len(start))
    ends = []
    for sign, wall in ((-1, polytope.low), (1, polytope.high)):
        best = sign * start
        for group in np.array_split(everything, -(-len(start) // TOGETHER)):
            pulled = group[best[group] < sign * wall - TOUCHING]
            if len(pulled):
                target = start.copy()
                target[pulled] = sign * FAR
                best = np.maximum(best, sign * nearest(polytope, target))
        for one in np.flatnonzero(best < sign * wall - TOUCHING):
            best[one] = -linear_program(polytope, -sign * (everything == one)).fun
        ends.append(np.where(best > sign * wall - TOUCHING, wall, sign * best))
    return tuple(ends)


def center(polytope: Polytope) -> np.ndarray:
    """Return a point that keeps a distance from every wall and from the box.

    It is the closest to mid-grey of those with the largest distance that there is: a
    quarter of the box, an eighth, a sixteenth and so on.
    """
    rows, values, equal, low, high = polytope
    grey = np.full(rows.shape[1], (low + high) / 2)
    lengths = np.linalg.norm(rows, axis=1)
    for halvings in range(2, 20):
        room = (high - low) / 2**halvings
        raised = np.where(equal, values, values + room * lengths)
        inner = Polytope(rows, raised, equal, low + room, high - room)
        with suppress(Infeasible, RuntimeError):
            return nearest(inner, grey)
    return nearest(polytope, grey)


def hit_and_run(polytope: Polytope, starts: np.ndarray, steps: int, seed: int):
    """Walk at random: over and over, to a random place on a random line.

    Hit-and-run (Smith 1984), one walk from each of the points (N, n) inside: after
    many steps the ends are uniform in the polytope.
    """
    rows, values, equal, low, high = polytope
    generator = np.random.default_rng(seed)
    seen = row_space(rows[equal])
    edges, heights = rows[~equal], values[~equal]
    points = starts.copy()
    for _ in range(steps):
        ways = generator.normal(size=points.shape)
        ways -= ways @ seen.T @ seen
        speeds = np.hstack([ways @ edges.T, ways, -ways])
        room = np.hstack([points @ edges.T - heights, points - low, high - points])
        limits = -np.maximum(room, 0) / np.where(speeds == 0, np.nan, speeds)
        back = np.nanmax(np.where(speeds > 0, limits, -np.inf), axis=1)
        ahead = np.nanmin(np.where(speeds < 0, limits, np.inf), axis=1)
        lengths = generator.uniform(back, ahead)
        points = np.clip(points + lengths[:, None] * ways, low, high)
    return points


def row_space(matrix: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis (rank, n) of what the rows of a matrix span."""
    _, sizes, rows = np.linalg.svd(matrix, full_matrices=False)
    return rows[sizes > 1e-10 * sizes.max(initial=0)]


def nearest_inside(polytope: Polytope, target: np.ndarray) -> np.ndarray | None:
    """Return the point of a polytope closest to a target; None if none is found.

    Clarabel's interior point method: a step costs much more than one of Newton's on
    the dual, but thirty are enough, also where hundreds of walls nearly meet.
    """
    rows, values, equal, low, high = polytope
    unit, ones = sparse.eye_array(len(target)), np.ones(len(target))
    matrix = sparse.vstack([rows[equal], -rows[~equal], unit, -unit], format="csc")
    limits = [values[equal], -values[~equal], high * ones, -low * ones]
    count = int(equal.sum())
    above = len(equal) - count + 2 * len(target)
    cones = [clarabel.ZeroConeT(count), clarabel.NonnegativeConeT(above)]
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_threads = False, 1
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = TOLERANCE
    problem = (sparse.csc_array(unit), -target, matrix, np.concatenate(limits), cones)
    found = clarabel.DefaultSolver(*problem, settings).solve()
    if found.status != clarabel.SolverStatus.Solved:
        return None
    return np.clip(found.x, low, high)
