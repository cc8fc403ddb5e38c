"""Second-order search: solve f(x) = y by Levenberg's and Marquardt's damped steps.

Gradient descent knows which way is down; the Jacobian J = df/dx also knows how far.
An output of k numbers needs only k rows of it and a k x k system for each step, and
a handful of steps where gradient descent takes hundreds. Of the many steps dx with
J dx = y - f(x) it takes the shortest. What "short" means is the metric, and that is
where knowledge of the inputs enters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import numpy as np

from netinvert.autoencoder import AutoencoderInversion, Drawing
from netinvert.gradient import Free, as_tuple, check_start, starting_inputs
from netinvert.inversion import Method, check_count, check_inputs
from netinvert.metric import METRICS, check_metric, spread_at
from netinvert.search import best_of
from netinvert.second_order import second_order_search


@dataclass
class LevenbergMarquardt:
    """Search by damped Gauss-Newton steps, for outputs of few numbers.

    Parameters
    ----------
    start : "mean", "noise", array or Method
        Where to begin, as for :class:`netinvert.GradientInversion`, and with an
        autoencoder as for :class:`netinvert.AutoencoderInversion`, "estimate" too.
        The answer stays near: each step goes the shortest way.
    metric : "pixels", "covariance", "residual" or object
        What "short" means. "pixels": every input value costs the same.
        "covariance": a change costs little if inputs given to ``fit`` often differ
        by it. "residual": if the starting method is often wrong by it. Or an object
        of your own: see Notes.
    autoencoder : None, "digits" or keras.Model
        None: search in the input. Otherwise search in the code of this autoencoder,
        as for :class:`netinvert.AutoencoderInversion`; the metric is then that of
        its codes.
    steps : int
        Most Jacobians computed for a target.
    restarts : int
        Searches per target, from ``start`` and then from different noise; the one
        with the smallest mismatch is kept.

    Notes
    -----
    A target leaves the batch when its outputs match to the last digits that their
    type can hold, or when its error falls no more; the others go on.

    Bounds are kept in every step: a value that would leave them stays at the bound,
    and the others take over its share.

    Where a ReLU ends the network, its zeros say only "not above 0". In a Keras model
    whose last layer has or is that ReLU, the search sees the values before it, takes
    those zeros as inequalities, and most targets converge. In other networks it
    cannot see how to turn on a unit that is off: then a target may end where its
    error falls no more, and ``converged`` tells. Nor can it leave a start where the
    network has no slope at all, such as 0 in a ReLU network without biases: begin
    at "noise" there.

    A metric is an object with ``fit(forward, inputs, start)``, called after the
    start has been fitted, and ``at(inputs, targets)``, which returns the
    :class:`netinvert.metric.Spread` at the inputs (N, ...) where the search starts.

    Examples
    --------
    >>> method = ni.LevenbergMarquardt(start=ni.InverseNetwork()).fit(forward, x_train)
    >>> result = ni.invert(forward, targets, method)
    """

    start: object = "mean"
    metric: object = "pixels"
    autoencoder: keras.Model | str | None = None
    steps: int = 30
    restarts: int = 1
    code_: AutoencoderInversion | None = field(default=None, init=False, repr=False)
    metric_: object = field(default=None, init=False, repr=False)
    mean_: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_metric(self.metric)
        self.steps = check_count("steps", self.steps)
        self.restarts = check_count("restarts", self.restarts)
        self.metric_ = self._new_metric()
        if self.autoencoder is None:
            check_start(self.start)
            return
        self.code_ = AutoencoderInversion(self.autoencoder, start=self.start)
        if self.metric != "pixels":
            raise ValueError(
                f"the metric {self.metric!r} is one of inputs, and the search is in "
                "the code of an autoencoder: leave one of the two out"
            )

    def _new_metric(self):
        return METRICS[self.metric]() if isinstance(self.metric, str) else self.metric

    def fit(self, forward, inputs) -> LevenbergMarquardt:
        """Note the mean of the inputs (N, ...); fit the start and the metric."""
        inputs = check_inputs(forward, inputs)
        self.mean_ = np.mean(inputs, axis=0)
        if self.code_ is not None:
            self.code_.fit(forward, inputs)
        elif isinstance(self.start, Method):
            self.start.fit(forward, inputs)
        self.metric_ = self._new_metric()
        self.metric_.fit(forward, inputs, self.start)
        return self

    @property
    def input_shape_(self) -> tuple[int, ...] | None:
        """Shape of one input, once fitted."""
        if self.mean_ is None:
            return getattr(self.start, "input_shape_", None)
        return self.mean_.shape

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs for a batch of targets; see :class:`netinvert.Method`."""
        begin = self._begin if self.code_ is None else self._begin_in_code
        found = []
        for restart in range(self.restarts):
            where = begin(
                "noise" if restart else self.start,
                forward,
                targets,
                bounds=bounds,
                seed=seed + restart,
                input_shape=input_shape,
            )
            found.append(second_order_search(forward, targets, *where, self.steps))
        return best_of(found, targets)

    def _begin(self, start, forward, targets, **task):
        """Inputs to begin with, their parametrization, metric and bounds."""
        inputs = starting_inputs(start, self.mean_, forward, targets, **task)
        spread = spread_at(self.metric_, inputs, targets)
        return inputs, Free(), spread, task["bounds"]

    def _begin_in_code(self, start, forward, targets, **task):
        """The same for codes; the decoder keeps what it draws within the bounds."""
        code, bounds = self.code_, task["bounds"]
        code._check_fitted(targets, task["input_shape"])
        drawing = Drawing(
            code.decoder_,
            as_tuple(code.center_),
            code.spread_,
            prior=0.0,
            bounds=None if bounds is None else tuple(map(as_tuple, bounds)),
        )
        codes = np.asarray(code._begin(start, forward, targets, **task))
        return codes, drawing, spread_at(self.metric_, codes, targets), None
