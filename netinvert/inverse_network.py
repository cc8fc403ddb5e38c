"""Method 3, the inverse network: a second network trained to run f backwards.

Pairs (f(x), x) are easy to make: draw x, run f. A network g trained on them answers
a target at once, without any search (Linden & Kindermann 1989 called inverting a
search; Dosovitskiy & Brox 2016 trained the network that answers instead). Where many
inputs share one output, g draws their average.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import numpy as np

from netinvert.data import load_mnist
from netinvert.inverse_training import build_networks, outputs_of, train
from netinvert.inversion import check_count, check_inputs, check_positive
from netinvert.models import as_function, load_weights, pretrained, tap

FEWEST_PAIRS = 10  # with fewer, nothing can be held out


@dataclass(eq=False)
class InverseNetwork:
    """Train a second network on pairs (f(x), x), and ask it for x.

    It sees the targets standardised, and as logarithms where they are
    probabilities: a softmax is nearly always close to 0 and 1, and what else the
    network knew about the input lies in the digits after.

    For images it ends in a sigmoid, scaled to the range of the inputs it was
    fitted on, and minimises the binary cross-entropy; for other inputs it ends in
    a linear layer and minimises the squared error of the standardised values.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers; ``()`` leaves a linear network.
    epochs : int
        Most passes over the pairs. A twentieth of them is held out; training ends
        early when these are answered no better, and the best epoch's weights stay.
    learning_rate : float
        First step size of Adam; it falls to 0 along a cosine.
    augment : bool
        Whether images are shown slightly turned, zoomed, sheared and shifted in
        the first 0.7 of the epochs. Pairs are free: ``forward`` says what belongs
        to a moved image, so it runs once per epoch. The last epochs show the
        images as they are. Means nothing for inputs that are not images.
    logarithm : bool or "auto"
        Whether to take the logarithm of the outputs first. "auto" does when all
        outputs seen in ``fit`` are probabilities: not negative, with a sum of 1.
    seed : int
        Of the first weights, the held-out pairs and the order of the others.

    Attributes
    ----------
    network_ : keras.Model
        Outputs of the forward network to inputs.
    logarithm_ : bool
        Whether it takes logarithms.
    history_ : dict
        "loss" and "held_out_loss", lists with one number per epoch.
    input_shape_, output_shape_ : tuple
        Of one input and one output of the forward network.

    Examples
    --------
    >>> method = ni.InverseNetwork().fit(forward, x_train)
    >>> result = ni.invert(forward, targets, method)
    """

    hidden: tuple[int, ...] = (512, 512)
    epochs: int = 40
    learning_rate: float = 6e-3
    augment: bool = True
    logarithm: bool | str = "auto"
    seed: int = 0
    network_: keras.Model | None = field(default=None, init=False, repr=False)
    logarithm_: bool | None = field(default=None, init=False, repr=False)
    history_: dict | None = field(default=None, init=False, repr=False)
    input_shape_: tuple | None = field(default=None, init=False, repr=False)
    output_shape_: tuple | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_settings(self)

    def fit(self, forward, inputs) -> InverseNetwork:
        """Train on inputs and what the forward network makes of them.

        Parameters
        ----------
        forward : keras.Model or callable
        inputs : array (M, ``*input_shape``)
            Like those to be found; at least 10.

        Raises
        ------
        ValueError
            If the inputs do not fit the network, are too few or not finite, or
            if the network's outputs are not finite.
        RuntimeError
            If training diverges.
        """
        inputs = check_inputs(forward, inputs).astype("float32")
        if len(inputs) < FEWEST_PAIRS:
            raise ValueError(
                f"an inverse network learns from examples: it needs at least "
                f"{FEWEST_PAIRS} inputs, better thousands, and got {len(inputs)}"
            )
        inputs = inputs[np.random.default_rng(self.seed).permutation(len(inputs))]
        function = as_function(forward)
        outputs = outputs_of(function, inputs)
        logarithm = choose_logarithm(self.logarithm, outputs)
        core, network = build_networks(
            inputs, outputs, self.hidden, logarithm, self.seed
        )
        self.history_ = train(core, function, inputs, outputs, self)
        self.network_, self.logarithm_ = network, logarithm
        self.input_shape_, self.output_shape_ = inputs.shape[1:], outputs.shape[1:]
        return self

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs for a batch of targets; see :class:`netinvert.Method`.

        There is no search and nothing random here: ``forward``, ``bounds`` and
        ``seed`` change nothing.
        """
        if self.network_ is None:
            raise RuntimeError(
                "InverseNetwork has learned nothing yet: call method.fit(forward, "
                "inputs) with inputs like those you expect back"
            )
        shapes = tuple(targets.shape[1:]), tuple(input_shape)
        if shapes != (self.output_shape_, self.input_shape_):
            raise ValueError(
                f"this InverseNetwork was fitted to find inputs of shape "
                f"{self.input_shape_} from outputs of shape {self.output_shape_}, "
                f"but is asked for {shapes[1]} from {shapes[0]}: call "
                "method.fit(forward, inputs) with the network to be inverted"
            )
        return self.network_(np.asarray(targets, "float32")).numpy(), {}


def check_settings(method: InverseNetwork) -> None:
    """Refuse settings that cannot work."""
    if not isinstance(method.hidden, tuple | list):
        raise ValueError(
            f"hidden must be a tuple of layer widths, such as (512, 512); "
            f"got {method.hidden!r}"
        )
    method.hidden = tuple(check_count("each width in hidden", w) for w in method.hidden)
    method.epochs = check_count("epochs", method.epochs)
    method.seed = check_count("seed", method.seed, minimum=0)
    method.learning_rate = check_positive("learning_rate", method.learning_rate)
    if method.augment not in (True, False):
        raise ValueError(f"augment must be True or False, got {method.augment!r}")
    if method.logarithm not in (True, False, "auto"):
        raise ValueError(
            f'logarithm must be True, False or "auto", got {method.logarithm!r}'
        )


def choose_logarithm(logarithm: bool | str, outputs: np.ndarray) -> bool:
    """Decide whether to take logarithms, and refuse where there are none."""
    if logarithm == "auto":
        total = outputs.reshape(len(outputs), -1).sum(axis=1)
        return bool(outputs.min() >= 0 and np.abs(total - 1).max() < 1e-3)
    if logarithm and outputs.min() < 0:
        raise ValueError(
            f"logarithm=True needs outputs that are not negative, but some are as low "
            f'as {outputs.min():.3g}; leave logarithm="auto"'
        )
    return bool(logarithm)


def digits_inverse() -> InverseNetwork:
    """Return the inverse network of ``tap(pretrained("mlp"), "hidden_1")``, fitted.

    It comes with the package, since a chapter has no time for its 60 epochs on the
    8,000 training digits; ``python -m netinvert.train inverse`` made it. The network
    of the default 40 epochs is hardly worse, and trains in half a minute.

    Raises
    ------
    RuntimeError
        If the weights file is missing or damaged.
    """
    (inputs, _), _ = load_mnist()
    outputs = outputs_of(as_function(tap(pretrained("mlp"), "hidden_1")), inputs)
    method = InverseNetwork(epochs=60)
    _, network = build_networks(inputs, outputs, method.hidden, False, method.seed)
    method.network_ = load_weights(network, "inverse_hidden_1.npz")
    method.logarithm_, method.history_ = False, {}
    method.input_shape_, method.output_shape_ = inputs.shape[1:], outputs.shape[1:]
    return method
