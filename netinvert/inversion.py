"""The judge: one call that runs a method and measures what it found.

A method proposes inputs; :func:`invert` alone validates the request, times the
search, puts the proposal inside the bounds, runs the forward network again on
exactly the array it returns, and computes the output error from that. So no
method can flatter itself.
"""

from __future__ import annotations

import os
import textwrap
import time
import warnings
from dataclasses import dataclass, field
from numbers import Real
from typing import Protocol, runtime_checkable

import numpy as np
from tqdm.auto import tqdm

from netinvert.forward import as_function, input_shape_of

PROGRESS_AFTER_SECONDS = 2.0  # shorter work needs no progress bar
LARGEST = float(np.finfo("float32").max)  # networks compute in float32
# tqdm heeds this wish in a terminal; its bar for notebooks has to be told.
NO_PROGRESS = bool(os.environ.get("TQDM_DISABLE"))


@runtime_checkable
class Method(Protocol):
    """What every inversion method offers; CONTRIBUTING.md has a skeleton to copy."""

    def fit(self, forward, inputs) -> Method:
        """Learn from inputs what there is to learn, and return the method itself."""

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs whose outputs should match the targets.

        Parameters
        ----------
        forward : keras.Model or callable
            Batch of inputs -> batch of outputs.
        targets : float32 array (N, ...)
            Validated by :func:`invert`: finite and of the right shape.
        bounds : (low, high) or None
        seed : int
        input_shape : tuple
            Shape of one input.

        Returns
        -------
        inputs : array (N, ``*input_shape``)
        history : dict
            Empty, or "step" (K,) with any of "objective" (K, N) and
            "inputs" (K, n, ``*input_shape``), n <= N.
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
        "step" (K,), "objective" (K, N) and "inputs" (K, n, ``*input_shape``) at the
        recorded steps of a search; empty for a method that does not search.
    seconds : float
        Time spent in the method's ``solve``.
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
        return (
            f"<Inversion of {len(self.inputs)} targets by {shortened(self.method)}: "
            f"median output error {np.median(self.residual):.2g}, "
            f"{self.converged.sum()} of {len(self.inputs)} converged>"
        )

    def _repr_png_(self) -> bytes:
        from netinvert.plots import figure_png, inversion_figure

        return figure_png(inversion_figure(self))


def shortened(method: str) -> str:
    """Put the settings of a method on one line, even where one is an array."""
    return textwrap.shorten(method, 160, placeholder=" ...")


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
        The outputs to invert, any numeric type; a single target of shape
        ``output_shape`` is taken as a batch of one.
    method : Method
        For example ``GradientInversion()``.
    bounds : (low, high) or None
        Range that every input value must stay in, as two numbers or as two arrays
        that fit one input; None leaves inputs unbounded.
    seed : int
        Same seed, same answer.
    input_shape : tuple, optional
        Shape of one input. Needed only for a callable that has no
        ``input_shape`` of its own and a method that was not fitted.
    tolerance : float
        Largest output error at which a target counts as converged.
    batch_size : int
        Targets searched at once; more are processed in chunks of this size.
    progress : bool
        Show a progress bar when there are several chunks and they take long.

    Returns
    -------
    Inversion

    Raises
    ------
    ValueError
        If an argument does not fit; nothing has been computed then.
    RuntimeError
        If the method has not been fitted and needs to be, or proposes inputs of
        the wrong shape or that are not finite.
    """
    seed = check_count("seed", seed, minimum=0)
    batch_size = check_count("batch_size", batch_size)
    if isinstance(method, type) or not isinstance(method, Method):
        raise ValueError(
            f"method must offer fit and solve, such as GradientInversion(); got "
            f"{method!r}" + ("; add parentheses" if isinstance(method, type) else "")
        )
    tolerance = check_positive("tolerance", tolerance)
    function = as_function(forward)
    shape = find_input_shape(forward, method, input_shape)
    bounds = check_bounds(bounds, shape)
    targets = check_targets(targets, find_output(function, shape))
    if names_class(method):
        check_classes(targets)

    chunks = [slice(i, i + batch_size) for i in range(0, len(targets), batch_size)]
    proposals, histories = [], []
    started = time.perf_counter()
    if progress and len(chunks) > 1:
        chunks = tqdm(
            chunks,
            desc=type(method).__name__,
            unit="chunk",
            delay=PROGRESS_AFTER_SECONDS,
            disable=NO_PROGRESS,
            leave=False,
        )
    for chunk in chunks:
        proposal = method.solve(
            forward, targets[chunk], bounds=bounds, seed=seed, input_shape=shape
        )
        inputs, history = check_proposal(proposal, targets[chunk], shape, method)
        proposals.append(inputs)
        histories.append(history)
    seconds = time.perf_counter() - started

    inputs = np.concatenate(proposals)
    if bounds is not None:
        inputs = np.clip(inputs, *representable(*bounds, inputs.dtype))
    outputs = evaluate(function, inputs, batch_size)
    return judge(inputs, outputs, targets, method, tolerance, histories, seconds)


def judge(inputs, outputs, targets, method, tolerance, histories, seconds):
    """Measure the proposal against the targets and say where it diverged."""
    axes = tuple(range(1, targets.ndim))
    residual = np.mean(
        (outputs.astype("float64") - targets.astype("float64")) ** 2, axis=axes
    )
    # The network computes in outputs.dtype: an error too large for it overflowed.
    diverged = ~(residual <= np.finfo(outputs.dtype).max)
    if diverged.any():
        warnings.warn(
            f"{diverged.sum()} of {len(targets)} searches diverged: their "
            "output error is too large to compute with. A smaller learning_rate, or "
            "bounds, usually helps, unless the network itself gives NaN for ordinary "
            "inputs.",
            RuntimeWarning,
            stacklevel=3,
        )
    if names_class(method):
        converged = outputs.argmax(axis=-1) == targets.argmax(axis=-1)
    else:
        converged = residual <= tolerance
    return Inversion(
        inputs=inputs,
        outputs=outputs,
        targets=targets,
        residual=residual,
        converged=converged & ~diverged,
        history=join_histories(histories),
        seconds=seconds,
        method=repr(method),
    )


def join_histories(histories: list[dict]) -> dict:
    """Put the chunks' histories side by side; pictures only of the first chunk."""
    if not histories[0]:
        return {}
    joined = dict(histories[0])
    if "objective" in joined:
        joined["objective"] = np.concatenate(
            [history["objective"] for history in histories], axis=1
        )
    return joined


def evaluate(function, inputs: np.ndarray, batch_size: int) -> np.ndarray:
    """Outputs of the network for an array of inputs, a chunk at a time."""
    return np.concatenate(
        [
            np.asarray(function(inputs[i : i + batch_size]))
            for i in range(0, len(inputs), batch_size)
        ]
    )


def find_input_shape(forward, method, given) -> tuple[int, ...]:
    """Shape of one input: from the argument, the network, or the fitted method."""
    known = input_shape_of(forward)
    if given is not None:
        if not isinstance(given, tuple | list):
            raise ValueError(
                f"input_shape must be a tuple, such as (28, 28, 1); got {given!r}"
            )
        given = tuple(check_count("each size in input_shape", size) for size in given)
        if known is not None and given != tuple(known):
            raise ValueError(
                f"input_shape {given} does not agree with the network's own "
                f"{tuple(known)}; leave input_shape out"
            )
        return given
    shape = known if known is not None else getattr(method, "input_shape_", None)
    if shape is None:
        raise ValueError(
            "cannot tell the shape of one input from this callable: pass "
            "input_shape=(...) to invert, or call method.fit(forward, inputs) first"
        )
    return tuple(shape)


def find_output(function, shape) -> np.ndarray:
    """Outputs for one input of zeros, which shows their shape and type."""
    try:
        output = np.asarray(function(np.zeros((1, *shape), "float32")))
    except Exception as error:
        raise ValueError(
            f"the forward network cannot take a batch of inputs of shape {shape}: "
            f"{error}"
        ) from error
    if output.ndim == 0 or len(output) != 1:
        raise ValueError(
            f"the forward network must map a batch to a batch, but for 1 input it "
            f"gave an output of shape {output.shape}"
        )
    if output.size == 0:
        raise ValueError(
            f"the forward network's outputs have the shape {output.shape[1:]}: there "
            "are no numbers in them to match"
        )
    if output.dtype.name == "bfloat16":
        raise ValueError(
            "the forward network's outputs are of type bfloat16, whose three digits "
            'are too few to follow: give its last layer dtype="float32"'
        )
    if not np.issubdtype(output.dtype, np.floating):
        raise ValueError(
            f"the forward network's outputs are of type {output.dtype}, which has no "
            "slope to follow: take real numbers, such as logits instead of a class"
        )
    return output


def check_inputs(forward, inputs) -> np.ndarray:
    """Return the inputs to fit on as a finite float batch that the network takes."""
    try:
        inputs = as_numbers(inputs)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"inputs to fit on must be an array of numbers, (N, ...): {error}"
        ) from error
    if not np.issubdtype(inputs.dtype, np.floating):
        inputs = inputs.astype("float32")
    if inputs.ndim < 2 or len(inputs) == 0:
        raise ValueError(
            f"inputs to fit on must be a batch (N, ...), not empty; got an array of "
            f"shape {inputs.shape}"
        )
    shape = input_shape_of(forward)
    if shape is not None and inputs.shape[1:] != tuple(shape):
        raise ValueError(
            f"the network takes inputs of shape {tuple(shape)}, so that a batch to "
            f"fit on is (N, {_listed(shape)}); got {inputs.shape}"
        )
    if not (np.abs(inputs) <= LARGEST).all():
        raise ValueError(
            "inputs to fit on hold NaN, infinity or numbers too large for float32; "
            "remove or repair them"
        )
    return inputs


def check_targets(targets, output: np.ndarray) -> np.ndarray:
    """Return the targets as a finite float batch shaped like the outputs."""
    shape = output.shape[1:]
    try:
        with np.errstate(over="ignore"):  # reported below, as infinite
            targets = as_numbers(targets).astype(output.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"targets must be an array of numbers of shape (N, {_listed(shape)}), "
            f"with rows of equal length: {error}"
        ) from error
    if targets.shape == shape:
        targets = targets[np.newaxis]
    if targets.shape[1:] != shape or targets.ndim != output.ndim:
        raise ValueError(
            f"each target must have the shape of one output of the network, "
            f"{shape}, so that targets are (N, {_listed(shape)}); got an array of "
            f"shape {targets.shape}"
        )
    if len(targets) == 0:
        raise ValueError("targets are empty: there is nothing to invert")
    finite = np.isfinite(targets.reshape(len(targets), -1)).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{(~finite).sum()} of {len(targets)} targets hold NaN, infinity or "
            f"numbers too large for {output.dtype}, the first at index "
            f"{int(np.argmin(finite))}; remove or repair them"
        )
    return targets


def names_class(method) -> bool:
    """Whether the method is asked for a class (cross-entropy), not for an output."""
    return getattr(getattr(method, "objective", None), "names_class", False)


def check_classes(targets: np.ndarray):
    """Refuse targets that are no shares of classes; most often they are logits."""
    if targets.ndim != 2:
        raise ValueError(
            "cross_entropy names one class per target, so targets are (N, classes); "
            f"got {targets.shape}. For other outputs take squared_error"
        )
    # with room for rounding, of float16 too
    wrong = (targets < -1e-3).any(axis=1) | (np.abs(targets.sum(axis=1) - 1) > 1e-2)
    if wrong.any():
        raise ValueError(
            "targets of cross_entropy are one-hot or probabilities: not negative, and "
            f"with a sum of 1; {wrong.sum()} of {len(targets)} are something else. To "
            "reach logits, take squared_error"
        )


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def check_proposal(proposal, targets, shape, method) -> tuple[np.ndarray, dict]:
    """Make sure a method returned one finite input for each target, and a history."""
    if not (isinstance(proposal, tuple) and len(proposal) == 2):
        raise RuntimeError(
            f"the solve of {method!r} must return inputs and a history, which may be "
            f"empty: (inputs, {{}}); it returned a {type(proposal).__name__}"
        )
    inputs, history = proposal
    try:
        inputs = as_numbers(inputs)
    except (TypeError, ValueError) as error:
        raise RuntimeError(
            f"{method!r} must propose inputs that are real numbers: {error}"
        ) from error
    if inputs.dtype not in ("float32", "float64"):
        inputs = inputs.astype("float32")
    if inputs.shape != (len(targets), *shape):
        raise RuntimeError(
            f"{method!r} must propose inputs of shape {(len(targets), *shape)}, one "
            f"for each target; its solve returned {inputs.shape}"
        )
    if not np.isfinite(inputs).all():
        raise RuntimeError(
            f"{method!r} proposed inputs that hold NaN or infinity; a smaller "
            "learning_rate, or bounds, usually helps, unless the network itself gives "
            "NaN for ordinary inputs"
        )
    return inputs, history


def check_bounds(bounds, shape):
    """Return bounds as a pair of finite floats or arrays, low below high."""
    if bounds is None:
        return None
    try:
        if isinstance(bounds, str | bytes | dict | set):
            raise TypeError(f"a {type(bounds).__name__} is no pair of numbers")
        low, high = (as_numbers(bound).astype("float64") for bound in bounds)
        np.broadcast_to(low, shape), np.broadcast_to(high, shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"bounds must be None or a pair (low, high) of numbers, or of arrays "
            f"that fit an input of shape {shape}; got {bounds!r}"
        ) from error
    sizes = np.concatenate([np.abs(low).ravel(), np.abs(high).ravel()])
    if not ((sizes <= LARGEST).all() and (high - low <= LARGEST).all()):
        raise ValueError(
            f"bounds must be finite, and both they and their distance at most "
            f"{LARGEST:.2g}; or None for no bounds; got {bounds}"
        )
    if not (low < high).all():
        raise ValueError(
            f"the low bound must be below the high one everywhere; got {bounds}"
        )
    inner_low, inner_high = representable(low, high, "float32")
    if not (inner_low < inner_high).all():
        raise ValueError(f"bounds are too close for float32 to tell apart: {bounds}")
    return (low, high) if low.ndim or high.ndim else (float(low), float(high))


def representable(low, high, dtype):
    """The numbers of a type that are nearest to the bounds and inside."""
    inner_low, inner_high = np.asarray(low, dtype), np.asarray(high, dtype)
    up, down = np.nextafter(inner_low, np.inf), np.nextafter(inner_high, -np.inf)
    return (
        np.where(inner_low < np.asarray(low), up, inner_low),
        np.where(inner_high > np.asarray(high), down, inner_high),
    )


def as_numbers(values) -> np.ndarray:
    """Return real numbers as an array; refuse what only looks like them."""
    rows = values if isinstance(values, list | tuple) else [values]
    if any(np.ma.is_masked(row) for row in rows):
        raise TypeError("some of these are masked; fill or remove them")
    array = np.asarray(values)
    if array.dtype == object:
        if any(value is None or isinstance(value, str | bytes) for value in array.flat):
            raise TypeError("some of these are text, or None")
        array = array.astype("float64")
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"these are of type {array.dtype}")
    return array


def check_positive(name: str, value) -> float:
    """Return a finite number above 0."""
    try:
        if isinstance(value, Real) and not isinstance(value, bool):
            if 0 < float(value) < float("inf"):
                return float(value)
    except OverflowError:  # a whole number beyond all floats
        pass
    raise ValueError(f"{name} must be a positive number, got {value!r:.80}")


def check_count(name: str, value, minimum: int = 1) -> int:
    """Return a whole number of at least ``minimum``."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def is_image(input_shape: tuple[int, ...]) -> bool:
    """Whether inputs have the shape (height, width, channels)."""
    return len(input_shape) == 3


def scaling(inputs: np.ndarray):
    """Offset and scale: of all values of images, of each value of other inputs."""
    if is_image(inputs.shape[1:]):
        offset, scale = float(inputs.min()), float(np.ptp(inputs))
        return offset, scale or 1.0
    offset, scale = inputs.mean(axis=0), inputs.std(axis=0)
    return offset, np.where(scale > 0, scale, 1)
