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
import tensorflow as tf
from tqdm.auto import tqdm

from netinvert.inversion import (
    PROGRESS_AFTER_SECONDS,
    check_count,
    check_inputs,
    evaluate,
)
from netinvert.models import as_function

CHUNK = 1000  # pairs run through a network at once
FEWEST_PAIRS = 10  # with fewer, nothing can be held out
HELD_OUT = 0.1  # share of the pairs that only decide which epoch was best
PATIENCE = 5  # epochs without a better one before training ends
STEPS_PER_EPOCH = 60  # few pairs come in smaller batches, to keep about this number
SMALLEST_BATCH, LARGEST_BATCH = 16, 128
FAINTEST = 1e-2  # outputs that hardly ever vary are not blown up beyond this
LEAST_PROBABILITY = 1e-30  # a softmax rounds to 0, which has no logarithm


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
        Most passes over the pairs. A tenth of them is held out; training ends
        early when they are answered no better, and the best epoch's weights stay.
    learning_rate : float
        First step size of Adam; it falls to 0 along a cosine.
    logarithm : bool or "auto"
        Whether to take the logarithm of the outputs first. "auto" does when all
        outputs seen in ``fit`` are probabilities: not negative, with a sum of 1.
    seed : int
        Of the first weights, the held-out pairs and the order of the others.
    progress : bool
        Show a progress bar when training takes long.

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
    epochs: int = 20
    learning_rate: float = 6e-3
    logarithm: bool | str = "auto"
    seed: int = 0
    progress: bool = True
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
        """
        inputs = check_inputs(forward, inputs).astype("float32")
        outputs = evaluate(as_function(forward), inputs, CHUNK)
        check_pairs(inputs, outputs)
        logarithm = choose_logarithm(self.logarithm, outputs)
        order = np.random.default_rng(self.seed).permutation(len(inputs))
        inputs, outputs = inputs[order], outputs[order].astype("float32")
        core, network = build_networks(
            inputs, outputs, self.hidden, logarithm, self.seed
        )
        held_out = max(1, int(HELD_OUT * len(inputs)))
        compare = cross_entropy if is_image(inputs.shape[1:]) else squared_error
        pairs = outputs, scaled(inputs)
        self.history_ = train(core, pairs, held_out, compare, self)
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
    rate = method.learning_rate
    if not (isinstance(rate, (int, float)) and 0 < rate < float("inf")):
        raise ValueError(f"learning_rate must be a positive number, got {rate!r}")
    if method.logarithm not in (True, False, "auto"):
        raise ValueError(
            f'logarithm must be True, False or "auto", got {method.logarithm!r}'
        )


def check_pairs(inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Refuse pairs from which nothing can be learned."""
    if len(inputs) < FEWEST_PAIRS:
        raise ValueError(
            f"an inverse network learns from examples: it needs at least "
            f"{FEWEST_PAIRS} inputs, better thousands, and got {len(inputs)}"
        )
    if len(outputs) != len(inputs) or outputs.ndim < 2:
        raise ValueError(
            f"the forward network must map a batch to a batch (N, ...), but for "
            f"{len(inputs)} inputs it gave outputs of shape {outputs.shape}"
        )
    spoiled = ~np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
    if spoiled.any():
        raise ValueError(
            f"for {spoiled.sum()} of {len(inputs)} inputs the forward network's "
            f"outputs are NaN or infinite, first for input {int(np.argmax(spoiled))}. "
            "If it takes the logarithm of a softmax, give the softmax instead."
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


def is_image(input_shape: tuple[int, ...]) -> bool:
    """Whether inputs are (height, width, channels)."""
    return len(input_shape) == 3


def scaling(inputs: np.ndarray):
    """Offset and scale: of all pixels together, of each value of other inputs."""
    if is_image(inputs.shape[1:]):
        return float(inputs.min()), float(np.ptp(inputs)) or 1.0
    scale = inputs.std(axis=0)
    return inputs.mean(axis=0), np.where(scale > 0, scale, 1)


def scaled(inputs: np.ndarray) -> np.ndarray:
    """What the core learns to draw: flat rows, images in [0, 1], vectors standard."""
    offset, scale = scaling(inputs)
    return ((inputs - offset) / scale).reshape(len(inputs), -1)


def build_networks(inputs, outputs, hidden, logarithm: bool, seed: int):
    """Build the part that is trained, and the whole network around it.

    Returns
    -------
    core : keras.Model
        Outputs of f (N, ...) to rows (N, p): logits of pixels, or standardised values.
    network : keras.Model
        Outputs of f to inputs (N, *input_shape). It shares the core's weights.
    """
    layers, ops = keras.layers, keras.ops
    seeds = iter(np.random.default_rng(seed).integers(2**31, size=len(hidden) + 2))

    def dense(width):
        start = keras.initializers.GlorotUniform(seed=int(next(seeds)))
        return layers.Dense(width, kernel_initializer=start)

    targets = keras.Input(outputs.shape[1:], name="target")
    values = layers.Flatten()(targets)
    flat = outputs.reshape(len(outputs), -1).astype("float32")
    if logarithm:
        flat = np.log(np.maximum(flat, LEAST_PROBABILITY))
        values = ops.log(ops.maximum(values, LEAST_PROBABILITY))
    middle, spread = flat.mean(axis=0), flat.std(axis=0)
    spread = np.maximum(spread, FAINTEST * spread.max()) if spread.any() else spread + 1
    values = standard = layers.Rescaling(1 / spread, -middle / spread)(values)
    for width in hidden:
        values = dense(width)(values)
        if is_image(inputs.shape[1:]):  # trains in half the epochs, but less exactly
            values = layers.BatchNormalization(momentum=0.95)(values)
        values = layers.Activation("relu")(values)
    if hidden:  # the last layer also sees the target itself: much of x is linear in y
        values = layers.Concatenate()([standard, values])
    values = dense(int(np.prod(inputs.shape[1:])))(values)
    core = keras.Model(targets, values)
    offset, scale = scaling(inputs)
    drawn = ops.sigmoid(values) if is_image(inputs.shape[1:]) else values
    drawn = layers.Reshape(inputs.shape[1:])(drawn)
    return core, keras.Model(targets, layers.Rescaling(scale, offset)(drawn))


def cross_entropy(answers, drawn):
    """Binary cross-entropy of logits (N, p), for answers in [0, 1]."""
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=answers, logits=drawn)


def squared_error(answers, drawn):
    """Squared differences of two arrays (N, p)."""
    return (answers - drawn) ** 2


def train(core, pairs, held_out: int, compare, settings: InverseNetwork) -> dict:
    """Train the core by Adam until held-out pairs are answered no better.

    Parameters
    ----------
    core : keras.Model
    pairs : two float32 arrays (M, ...) and (M, p)
        What the core sees and what it should draw, in random order.
    held_out : int
        How many of the first pairs only decide which epoch was best.
    compare : callable
        What it should draw and what it draws, to errors whose mean is minimised.
    settings : InverseNetwork

    Returns
    -------
    dict
        "loss" and "held_out_loss", lists with one number per epoch.
    """
    outputs, answers = pairs
    learned = np.arange(held_out, len(outputs))
    batch = np.clip(len(learned) // STEPS_PER_EPOCH, SMALLEST_BATCH, LARGEST_BATCH)
    count = max(1, len(learned) // batch)
    step, loss = compile_training(core, compare, settings, count)
    random = np.random.default_rng(settings.seed)
    history = {"loss": [], "held_out_loss": []}
    for epoch in tqdm(
        range(settings.epochs),
        desc="training the inverse network",
        unit="epoch",
        delay=PROGRESS_AFTER_SECONDS,
        disable=not settings.progress,
        leave=False,
    ):
        random.shuffle(learned)  # the rest has its turn in another epoch
        rows = np.array_split(learned[: count * batch], count)
        losses = [step(outputs[row], answers[row]) for row in rows]
        history["loss"].append(float(np.mean(losses)))
        error = float(loss(outputs[:held_out], answers[:held_out]))
        if not np.isfinite(error):
            raise ValueError(
                f"training diverged: the loss is {error}. A learning_rate below "
                f"{settings.learning_rate} usually helps."
            )
        history["held_out_loss"].append(error)
        best = int(np.argmin(history["held_out_loss"]))
        if best == epoch:
            weights = core.get_weights()
        elif epoch - best == PATIENCE:
            break
    core.set_weights(weights)
    return history


def compile_training(core, compare, settings: InverseNetwork, steps_per_epoch):
    """Compile one step of Adam, and the loss that it lowers."""
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, settings.epochs * steps_per_epoch
    )
    optimizer = keras.optimizers.Adam(rate)
    weights = core.trainable_variables
    optimizer.build(weights)

    def loss(outputs, answers, training=False):
        return tf.reduce_mean(compare(answers, core(outputs, training=training)))

    @tf.function
    def step(outputs, answers):
        with tf.GradientTape() as tape:
            value = loss(outputs, answers, training=True)
        optimizer.apply(tape.gradient(value, weights), weights)
        return value

    return step, tf.function(loss)
