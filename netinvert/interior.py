"""The nearest point of a polytope by an interior path: slow, but it always arrives."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dsyrk

MOST_STEPS = 100
TOLERANCE = 1e-9  # of a row of length 1
SLOPE = 1e-6  # of the distance, in the directions that are free
TENSION = 1e-12  # the mean of room times price, which is 0 at the answer
SHORTEN = 0.995  # of the way to the nearest wall: the path stays inside


@np.errstate(all="ignore")  # what has no answer grows without end
def nearest_inside(
    rows: np.ndarray,
    values: np.ndarray,
    equal: np.ndarray,
    box: tuple[float, float],
    target: np.ndarray,
) -> np.ndarray | None:
    """Return the point of a polytope that is closest to a target.

    Parameters
    ----------
    rows : float array (k, n)
        Each of length 1.
    values, equal
        As in :class:`netinvert.polytope.Polytope`.
    box : (low, high)
    target : float array (n,)

    Returns
    -------
    float array (n,), or None if the path does not arrive.

    Notes
    -----
    Mehrotra's predictor and corrector (1992). A step costs much more than one of
    Newton's method on the dual, but twenty or thirty of them are enough, also where
    hundreds of walls meet at nearly the same place.
    """
    equations, asked = rows[equal], values[equal]
    walls, size = rows[~equal], len(target)
    heights = np.concatenate(
        [values[~equal], np.full(size, box[0]), np.full(size, -box[1])]
    )

    def against(x):  # all walls, those of the box too
        return np.concatenate([walls @ x, x, -x])

    def along(prices):
        own, low, high = np.split(prices, [len(walls), len(walls) + size])
        return own @ walls + low - high

    def step(wanted):
        right = along((wanted - prices * outside) / room) - slope
        free = cho_solve(factor, right)
        change = np.linalg.solve(equations @ spread, -off - equations @ free)
        ahead = free + spread @ change
        more = against(ahead) + outside
        return ahead, more, (wanted - prices * more) / room, change

    x = np.full(size, (box[0] + box[1]) / 2)
    room = np.maximum(against(x) - heights, 0.1)
    prices, worth = np.ones(len(room)), np.zeros(len(asked))
    for _ in range(MOST_STEPS):
        slope = x - target - along(prices) - worth @ equations
        off, outside = equations @ x - asked, against(x) - heights - room
        tension = room @ prices / len(room)
        wrong = max(abs(off).max(initial=0), abs(outside).max())
        if wrong < TOLERANCE and tension < TENSION and abs(slope).max() < SLOPE:
            return np.clip(x, *box)
        own, low, high = np.split(prices / room, [len(walls), len(walls) + size])
        # The upper half is all that a Cholesky factor needs, for half the work.
        matrix = dsyrk(1.0, walls * np.sqrt(own)[:, None], trans=True)
        matrix[np.diag_indices(size)] += 1 + low + high
        try:
            factor = cho_factor(matrix)
            spread = cho_solve(factor, equations.T)
            _, more, dearer, _ = step(-room * prices)
            a, b = longest(room, more), longest(prices, dearer)
            tighter = (room + a * more) @ (prices + b * dearer) / len(room)
            centred = tension * (tighter / tension) ** 3
            ahead, more, dearer, change = step(centred - room * prices - more * dearer)
        except (np.linalg.LinAlgError, ValueError):  # singular, or without end
            return None
        way = SHORTEN * min(longest(room, more), longest(prices, dearer))
        x, room = x + way * ahead, room + way * more
        prices, worth = prices + way * dearer, worth + way * change
    return None


def longest(values: np.ndarray, change: np.ndarray) -> float:
    """Return how much of a change, at most 1, leaves all values positive."""
    shrinking = change < 0
    return min(1.0, (-values[shrinking] / change[shrinking]).min(initial=np.inf))
