"""The judge: one call that runs a method and measures what it found.

A method proposes inputs; :func:`invert` alone validates the request, times the
search, puts the proposal inside the bounds, runs the forward network again on
exactly the array it returns, and computes the output error from that. So no
method can flatter itself.
"""

from __future__ import annotations

import contextlib
import os
import textwrap
import time
import warnings
from dataclasses import dataclass, field
from numbers import Real
from typing import Protocol, runtime_checkable

import numpy as np
from tqdm.auto import tqdm

from netinvert.forward import as_function, evaluate, find_output, input_shape_of
from netinvert.objectives import check_classes

LARGEST = float(np.finfo("float32").max)  # networks compute in float32
REMEDY = (
    "A smaller learning_rate, or bounds, usually helps, unless the network itself "
    "gives NaN for ordinary inputs"
)


@runtime_checkable
class Method(Protocol):
    """What every inversion method offers; CONTRIBUTING.md has a skeleton to copy."""

    def fit(self, forward, inputs) -> Method:
        """Learn from inputs what there is to learn, and return the method itself."""

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs whose outputs should match the targets (N, ...).

        :func:`invert` has checked all arguments: targets are of the outputs' type,
        ``bounds`` is (low, high) or None, ``input_shape`` that of one input. Returns
        inputs (N, ``*input_shape``) and a history, a dict: empty, or "step" (K,) with
        any of "objective" (K, N) and "inputs" (K, n, ``*input_shape``), n <= N.
        """


@dataclass(frozen=True, repr=False, eq=False)
class Inversion:
    """What :func:`invert` found, and how well it fits.

    Attributes
    ----------
    inputs : float32 array (N, ``*input_shape``)
        The reconstructions, inside the bounds.
    outputs, targets : float32 array (N, ...)
        What the network says of ``inputs``, and what it should have said.
    residual : float array (N,)
        Output error: mean squared difference between outputs and targets.
    converged : bool array (N,)
        Whether the output error is at most the tolerance; where the method's
        objective names a class (cross-entropy), whether that class came out.
    history : dict
        What :meth:`Method.solve` recorded; empty where it does not search.
    seconds : float
        Time spent in ``solve``.
    method : str
        The method and its settings.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    targets: np.ndarray
    residual: np.ndarray
    converged: np.ndarray
    history: dict = field(default_factory=dict)
    seconds: float = 0.0
    method: str = ""

    def __repr__(self) -> str:
        # one line, even where a setting is an array
        method = textwrap.shorten(self.method, 160, placeholder=" ...")
        return (
            f"<Inversion of {len(self.inputs)} targets by {method}: "
            f"median output error {np.median(self.residual):.2g}, "
            f"{self.converged.sum()} of {len(self.inputs)} converged>"
        )

    def _repr_png_(self) -> bytes:
        from netinvert.plots import figure_png, inversion_figure

        return figure_png(inversion_figure(self))


def invert(
    forward,
    targets,
    method: Method,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    seed: int = 0,
    input_shape: tuple[int, ...] | None = None,
    tolerance: float = 1e-4,
    batch_size: int = 1024,
    progress: bool = True,
) -> Inversion:
    """Find inputs that the forward network maps to the targets.

    Parameters
    ----------
    forward : keras.Model or callable
        The part of the network whose output is held, batch -> batch.
    targets : array (N, *output_shape)
        Of any numeric type; a single target is taken as a batch of one.
    method : Method
        For example ``GradientInversion()``.
    bounds : (low, high) or None
        Range that every input value must stay in, as two numbers or as two arrays
        that fit one input; None leaves inputs unbounded.
    seed : int
        Same seed, same answer.
    input_shape : tuple, optional
        Shape of one input, where neither the network shows it, nor a method that was
        fitted or starts from an array.
    tolerance : float
        Largest output error at which a target counts as converged.
    batch_size : int
        Targets searched at once; more are processed in chunks of this size.
    progress : bool
        Show a progress bar when several chunks take long.

    Raises
    ------
    ValueError
        If an argument does not fit; nothing has been computed then.
    RuntimeError
        If the method needs to be fitted, or proposes inputs that do not fit.
    """
    seed = check_count("seed", seed, minimum=0)
    batch_size = check_count("batch_size", batch_size)
    tolerance = check_positive("tolerance", tolerance)
    if isinstance(method, type) or not isinstance(method, Method):
        raise ValueError(
            f"method must offer fit and solve, such as GradientInversion(); got "
            f"{method!r}" + ("; add parentheses" if isinstance(method, type) else "")
        )
    function = as_function(forward)
    shape = find_input_shape(forward, function, method, input_shape, targets)
    bounds = check_bounds(bounds, shape)
    targets = check_targets(targets, find_output(function, shape))
    if names_class(method):
        check_classes(targets)

    chunks = [targets[i : i + batch_size] for i in range(0, len(targets), batch_size)]
    task = {"bounds": bounds, "seed": seed, "input_shape": shape}
    show, started = progress and len(chunks) > 1, time.perf_counter()
    found = [
        check_proposal(method.solve(forward, chunk, **task), len(chunk), shape, method)
        for chunk in progress_bar(chunks, type(method).__name__, "chunk", show)
    ]
    seconds = time.perf_counter() - started

    proposals, histories = zip(*found, strict=True)
    inputs = np.concatenate(proposals)
    if bounds is not None:
        inputs = np.clip(inputs, *representable(*bounds, inputs.dtype))
    outputs = evaluate(function, inputs, batch_size)
    judged = judge(outputs, targets, method, tolerance)
    history = join_histories(histories)
    return Inversion(inputs, outputs, targets, *judged, history, seconds, repr(method))


def progress_bar(steps, name: str, unit: str, show: bool = True):
    """Go through the steps with a bar, which appears when they take long."""
    quiet = not show or bool(os.environ.get("TQDM_DISABLE"))  # in notebooks too
    return tqdm(steps, desc=name, unit=unit, delay=2.0, disable=quiet, leave=False)


def judge(outputs, targets, method, tolerance) -> tuple[np.ndarray, np.ndarray]:
    """Measure the output error and tell who converged, and warn of who diverged."""
    difference = outputs.astype("float64") - targets.astype("float64")
    residual = np.mean(difference**2, axis=tuple(range(1, targets.ndim)))
    # The network computes in outputs.dtype: an error too large for it overflowed.
    diverged = ~(residual <= np.finfo(outputs.dtype).max)
    if diverged.any():
        warnings.warn(
            f"{diverged.sum()} of {len(targets)} searches diverged: their "
            f"output error is too large to compute with. {REMEDY}.",
            RuntimeWarning,
            stacklevel=3,
        )
    converged = residual <= tolerance
    if names_class(method):
        converged = outputs.argmax(axis=-1) == targets.argmax(axis=-1)
    return residual, converged & ~diverged


def join_histories(histories) -> dict:
    """Put the chunks' histories side by side; pictures only of the first chunk."""
    joined = dict(histories[0])
    if "objective" in joined:
        joined["objective"] = np.hstack([one["objective"] for one in histories])
    return joined


def find_input_shape(forward, function, method, given, targets) -> tuple[int, ...]:
    """Shape of one input: from the argument, the network, or the method."""
    known = input_shape_of(forward)
    if given is not None:
        sizes = given if isinstance(given, tuple | list) else ()
        sizes = tuple(check_count("each size in input_shape", size) for size in sizes)
        if not sizes or sizes != (known or sizes):
            raise ValueError(
                f"input_shape must be a tuple, such as {known or (28, 28, 1)}, and the "
                f"network's own where that is known; got {given!r}"
            )
        return sizes
    shape = known if known is not None else getattr(method, "input_shape_", None)
    return shape_of_start(function, method, targets) if shape is None else tuple(shape)


def shape_of_start(function, method, targets) -> tuple[int, ...]:
    """Shape of one input, where the method starts from an array that fits."""
    start = method
    while isinstance(start, Method):
        start = getattr(start, "start", "")
    size = np.shape(start)
    for shape in filter(None, (size[1:], size)):  # one for each target, or one for all
        # What is wrong with a start, or with the targets, is said where they are used.
        with contextlib.suppress(ValueError):
            count = len(check_targets(targets, find_output(function, shape)))
            if shape == size or size[0] == count:
                return shape
    raise ValueError(
        "cannot tell the shape of one input from this callable: pass "
        "input_shape=(...) to invert, or call method.fit(forward, inputs) first"
    )


def names_class(method) -> bool:
    """Whether the method is asked for a class (cross-entropy), not for an output."""
    return getattr(getattr(method, "objective", None), "names_class", False)


def check_inputs(forward, inputs) -> np.ndarray:
    """Return the inputs to fit on as a finite float batch that the network takes."""
    inputs = as_numbers(inputs, "inputs to fit on must be an array of numbers")
    if not np.issubdtype(inputs.dtype, np.floating):
        inputs = inputs.astype("float32")
    shape = input_shape_of(forward) or inputs.shape[1:] or (1,)
    check_rows("input", inputs, tuple(shape), "float32")
    return inputs


def check_targets(targets, output: np.ndarray) -> np.ndarray:
    """Return the targets as a finite float batch shaped like the outputs."""
    expected = "targets must be an array of numbers, with rows of equal length"
    targets = as_numbers(targets, expected)
    with np.errstate(over="ignore"):  # reported below, as infinite
        targets = targets.astype(output.dtype)
    if targets.shape == output.shape[1:]:
        targets = targets[np.newaxis]
    check_rows("target", targets, output.shape[1:], output.dtype)
    return targets


def check_rows(name: str, rows: np.ndarray, shape: tuple, dtype) -> None:
    """Refuse rows that do not fit the network, or that it cannot compute with."""
    if rows.shape[1:] != shape or rows.ndim != 1 + len(shape):
        part, batch = "output" if name == "target" else name, ("N", *shape)
        raise ValueError(
            f"each {name} must have the shape of one {part} of the network, {shape}, "
            f"so that {name}s are ({', '.join(map(str, batch))}); got an array of "
            f"shape {rows.shape}"
        )
    if len(rows) == 0:
        raise ValueError(f"{name}s are empty: there is nothing to invert")
    wrong = ~(np.abs(rows) <= np.finfo(dtype).max).reshape(len(rows), -1).all(axis=1)
    if wrong.any():
        raise ValueError(
            f"{wrong.sum()} of {len(rows)} {name}s hold NaN, infinity or numbers too "
            f"large for {dtype}, the first at index {int(np.argmax(wrong))}; remove or "
            "repair them"
        )


def check_proposal(proposal, count, shape, method) -> tuple[np.ndarray, dict]:
    """Make sure a method returned one finite input for each target, and a history."""
    try:
        inputs, history = proposal
        inputs = as_numbers(inputs)
        if inputs.shape != (count, *shape):
            raise ValueError(f"their shape is {inputs.shape}")
        if not np.isfinite(inputs).all():
            raise ValueError(f"they hold NaN or infinity. {REMEDY}")
        if inputs.dtype not in ("float32", "float64"):
            inputs = inputs.astype("float32")
        return inputs, history
    except (TypeError, ValueError) as error:
        raise RuntimeError(
            f"{method!r} must propose inputs of shape {(count, *shape)}, one for each "
            f"target, and its solve return (inputs, history), such as (inputs, {{}}): "
            f"{error}"
        ) from error


def check_bounds(bounds, shape):
    """Return bounds as a pair of finite floats or arrays, low below high."""
    if bounds is None:
        return None
    try:
        low, high = (as_numbers(bound).astype("float64") for bound in bounds)
        np.broadcast_to(low, shape), np.broadcast_to(high, shape)
        sizes = np.abs(low), np.abs(high), high - low
        finite = all((size <= LARGEST).all() for size in sizes)
        if isinstance(bounds, bytes | dict | set) or not finite:
            raise ValueError("numbers without order, or beyond float32")
    except (TypeError, ValueError) as error:
        raise ValueError(
            "bounds must be None or a pair (low, high) of finite numbers, or of arrays "
            f"that fit an input of shape {shape}; both they and their distance are at "
            f"most {LARGEST:.2g}; got {bounds!r}"
        ) from error
    if not np.less(*representable(low, high, "float32")).all():
        close = ", too close for float32 to tell apart" * bool((low < high).all())
        raise ValueError(
            f"the low bound must be below the high one everywhere; got {bounds}{close}"
        )
    return (low, high) if low.ndim or high.ndim else (float(low), float(high))


def representable(low, high, dtype):
    """The numbers of a type that are nearest to the bounds and inside."""
    low, high = np.asarray(low), np.asarray(high)
    lows, highs = low.astype(dtype), high.astype(dtype)
    lows = np.where(lows < low, np.nextafter(lows, np.inf), lows)
    return lows, np.where(highs > high, np.nextafter(highs, -np.inf), highs)


def as_numbers(values, expected: str = "real numbers are expected") -> np.ndarray:
    """Return real numbers as an array; refuse what only looks like them."""
    try:
        rows = values if isinstance(values, list | tuple) else [values]
        if any(map(np.ma.is_masked, rows)):
            raise TypeError("some of these are masked; fill or remove them")
        array = np.asarray(values)
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise TypeError(f"these are of type {array.dtype}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{expected}: {error}") from error
    return array


def check_positive(name: str, value) -> float:
    """Return a finite number above 0."""
    if isinstance(value, Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a whole number beyond all floats
            if 0 < float(value) < np.inf:
                return float(value)
    raise ValueError(f"{name} must be a positive number, got {value!r:.80}")


def check_count(name: str, value, minimum: int = 1) -> int:
    """Return a whole number of at least ``minimum``."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def check_learned(method, network, learned, targets, input_shape) -> None:
    """Refuse a method that has no network yet, or one of other shapes."""
    name, asked = type(method).__name__, (targets.shape[1:], tuple(input_shape))
    if network is None:
        raise RuntimeError(
            f"{name} has learned nothing yet: call method.fit(forward, inputs) with "
            "inputs like those you expect back"
        )
    if asked != learned:
        raise ValueError(
            f"this {name} was fitted to go from outputs to inputs of shapes {learned}, "
            f"not {asked}: call method.fit(forward, inputs)"
        )


def is_image(input_shape: tuple[int, ...]) -> bool:
    """Whether inputs have the shape (height, width, channels)."""
    return len(input_shape) == 3


def scaling(inputs: np.ndarray):
    """Offset and scale: of all values of images, of each value of other inputs."""
    if is_image(inputs.shape[1:]):
        return float(inputs.min()), float(np.ptp(inputs)) or 1.0
    scale = inputs.std(axis=0)
    return inputs.mean(axis=0), np.where(scale > 0, scale, 1)
