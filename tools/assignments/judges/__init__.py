"""The judges: one a file, each measures what a submission proposed.

A judge has ``TITLE``, ``MINUTES``, ``TASKS`` (task -> points), ``ASKS`` (name of an
answer -> expression that is evaluated after the last cell), ``PRELUDE`` (source for
these), and four functions of a :class:`tools.assignments.cases.Case`:

case_cell(case)      source of the locked cell that makes a notebook this student's own
given(case)          arrays for the asks, in the submission's process: no secrets
judge(answers, case) task -> :class:`Mark`
pictures(answers, case)  rows for the feedback page, to look at
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[0-9]*_*.py"))
EXPLANATION = 4  # points that a person gives, in every assignment


class Mark(NamedTuple):
    """Points for one task, and a sentence that says what was found and expected."""

    points: float
    said: str


def load(name: str):
    """Return the judge of an assignment, by its name or its number."""
    fits = [known for known in NAMES if known == name or known.startswith(f"{name}_")]
    fits = fits or [known for known in NAMES if known.startswith(f"0{name}_")]
    if len(fits) != 1:
        raise ValueError(
            f"there is no assignment {name!r}; choose one of {', '.join(NAMES)}"
        )
    judge = importlib.import_module(f"tools.assignments.judges.{fits[0]}")
    judge.NAME = fits[0]
    return judge


def trouble(value, shape: tuple, box: bool = False, what: str = "numbers") -> str:
    """Say why an answer cannot be measured; empty if it can."""
    if value is None:
        return "there is no answer"
    if not isinstance(value, np.ndarray):
        return f"an array of {what} was expected, and this is text"
    if value.shape != shape:
        return f"its shape is {value.shape}; {shape} was expected"
    if np.isnan(value).any() or (box and not np.isfinite(value).all()):
        return "it holds numbers that are not finite"
    if box and (value.min() < -1e-6 or value.max() > 1 + 1e-6):
        low, high = value.min(), value.max()
        return f"its pixels go from {low:.2f} to {high:.2f}; 0 to 1 was expected"
    return ""


def close(value, wanted, tolerance: float) -> str:
    """Say how an answer differs from what was expected; empty if it does not."""
    wanted = np.asarray(wanted, "float64")
    if why := trouble(value, wanted.shape):
        return why
    with np.errstate(invalid="ignore"):
        far = ~((value == wanted) | (abs(value - wanted) <= tolerance))
    if far.any():
        place = tuple(np.argwhere(far)[0])
        return f"it gives {value[place]:.4g} where {wanted[place]:.4g} was expected"
    return ""


def checks(parts: list, of: float) -> Mark:
    """Add up a task: parts are (points, name, what is wrong or "")."""
    points = sum(worth for worth, _, wrong in parts if not wrong)
    said = [f"{name}: {wrong or 'right'}" for _, name, wrong in parts]
    assert sum(worth for worth, _, _ in parts) == of
    return Mark(points, "; ".join(said))


def share(of: float, count: int, enough: int) -> float:
    """Points for a part of what was asked, in steps of a half."""
    return float(np.floor(2 * of * min(1.0, count / enough)) / 2)


def output_error(forward, pictures, targets) -> np.ndarray:
    outputs = np.asarray(forward(np.asarray(pictures, "float32")), "float64")
    return ((outputs - targets) ** 2).mean(axis=1)
