"""Method 3, the inverse network: a second network trained to run f backwards.

Pairs (f(x), x) are easy to make: draw x, run f. A network g trained on them answers a
target at once, without any search (Dosovitskiy & Brox 2016, where Linden & Kindermann
1989 searched). Where many inputs share one output, g draws their average.
"""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass, field, fields

import keras
import numpy as np
import tensorflow as tf

from netinvert.baselines import center_and_spread
from netinvert.data import load_mnist
from netinvert.forward import as_function, tap
from netinvert.inversion import (
    check_count,
    check_inputs,
    check_learned,
    check_positive,
    evaluate,
    is_image,
    progress_bar,
    scaling,
)
from netinvert.methods.gradient import in_graph
from netinvert.models import load_weights, pretrained


@dataclass(eq=False, repr=False)
class InverseNetwork:
    """Train a second network on pairs (f(x), x), and ask it for x.

    It sees the targets standardized, and as logarithms where they are probabilities:
    a softmax is nearly always close to 0 and 1, and the rest of what it knows lies in
    the digits after. Of exact probabilities it sees some rounded. Where all answers
    come rounded, let it learn from such: ``fit(lambda x: np.round(f(x), 3), inputs)``.
    Images it draws by a sigmoid, in the range of those it was fitted on, and minimizes
    the binary cross-entropy; for other inputs the squared error.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers; ``()`` leaves a linear network.
    epochs : int
        Most passes over the pairs. A twentieth of these is held out; training ends
        when they are answered no better, and the best epoch's weights stay.
    learning_rate : float
        First step size of Adam; it falls to 0 along a cosine.
    augment : bool
        Whether images are shown slightly turned, zoomed, sheared and shifted in the
        first 0.7 of the epochs; ``forward`` says what belongs to them.
    logarithm : bool or "auto"
        Whether to take the outputs' logarithm. "auto" does when those seen in ``fit``
        are probabilities, exact or rounded; 0 counts as half of the last decimal.
    seed : int
        Of the first weights, the held-out pairs and the order of the others.

    Attributes
    ----------
    network_ : keras.Model
        Outputs of the forward network to inputs.
    logarithm_, decimals_ : bool, int or None
        Whether it takes logarithms; to how many decimals the probabilities were
        rounded, None for exact ones. The ``repr`` shows both.
    history_ : dict
        "loss" and "held_out_loss", lists with one number per epoch.

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
    network_: keras.Model | None = field(default=None, init=False)
    logarithm_: bool | None = field(default=None, init=False)
    decimals_: int | None = field(default=None, init=False)
    history_: dict | None = field(default=None, init=False)
    input_shape_: tuple | None = field(default=None, init=False)
    output_shape_: tuple | None = field(default=None, init=False)

    def __post_init__(self):
        if not isinstance(self.hidden, tuple | list):
            raise ValueError(f"hidden must be a tuple of layer widths: {self.hidden!r}")
        self.hidden = tuple(check_count("each width in hidden", w) for w in self.hidden)
        self.epochs = check_count("epochs", self.epochs)
        self.seed = check_count("seed", self.seed, minimum=0)
        self.learning_rate = check_positive("learning_rate", self.learning_rate)
        known = {"augment": (True, False), "logarithm": (True, False, "auto")}
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise ValueError(f"{name} must be one of {values}, got {value!r}")

    def __repr__(self) -> str:
        named = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.init)
        text = ", ".join(named)
        if self.logarithm_:
            text += f"; takes logarithms, 0 as {floors(self.decimals_)[1]:g}"
        elif self.logarithm_ is not None:
            text += "; takes no logarithms"
        return f"InverseNetwork({text})"

    def fit(self, forward, inputs) -> InverseNetwork:
        """Train on at least 10 inputs (M, ...), and what forward makes of them.

        ValueError if these do not fit or are not finite, RuntimeError if it diverges.
        """
        inputs = check_inputs(forward, inputs).astype("float32")
        if len(inputs) < FEWEST_PAIRS:
            raise ValueError(
                f"an inverse network needs at least {FEWEST_PAIRS} inputs, better "
                f"thousands; got {len(inputs)}"
            )
        inputs = inputs[np.random.default_rng(self.seed).permutation(len(inputs))]
        function = as_function(forward)
        outputs = outputs_of(function, inputs)
        self.network_ = None  # should training fail
        self.logarithm_ = choose_logarithm(self.logarithm, outputs)
        self.decimals_ = decimals_of(outputs) if self.logarithm_ else None
        self.input_shape_, self.output_shape_ = inputs.shape[1:], outputs.shape[1:]
        settings = self.hidden, self.logarithm_, self.seed
        core, network = build_networks(inputs, outputs, *settings)
        self.history_ = train(core, function, inputs, outputs, self)
        self.network_ = network
        return self

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        """Propose inputs, without a search; see :class:`netinvert.Method`."""
        learned = self.output_shape_, self.input_shape_
        check_learned(self, self.network_, learned, targets, input_shape)
        if self.logarithm_ and self.decimals_ is None:
            warn_where_rounded(targets)
        return self.network_(np.asarray(targets, "float32")).numpy(), {}


def digits_inverse() -> InverseNetwork:
    """Return the inverse network of ``tap(pretrained("mlp"), "hidden_1")``, fitted.

    Made in 60 epochs on the 8,000 training digits, by ``python -m
    netinvert.studies.train inverse``. RuntimeError if damaged.
    """
    (inputs, _), _ = load_mnist()
    outputs = outputs_of(as_function(tap(pretrained("mlp"), "hidden_1")), inputs)
    method = InverseNetwork(epochs=60)
    _, network = build_networks(inputs, outputs, method.hidden, False, method.seed)
    method.network_ = load_weights(network, "inverse_hidden_1.npz")
    method.logarithm_, method.history_ = False, {}
    method.input_shape_, method.output_shape_ = inputs.shape[1:], outputs.shape[1:]
    return method


FEWEST_PAIRS = 10  # with fewer, nothing can be held out
CHUNK = 1000  # inputs run through the forward network at once
HELD_OUT = 0.05  # share of the pairs that only decide which epoch was best
PATIENCE = 10  # epochs of inputs as they are, none of them better: training ends
STEPS_PER_EPOCH = 60  # few pairs come in smaller batches, to keep about this number
SMALLEST_BATCH, LARGEST_BATCH = 16, 128
MOST_DECIMALS = 8  # float32 has no more to round away
LEAST_PROBABILITY = 1e-30  # a softmax rounds to 0, which has no logarithm
ROUNDED_SHARE = 0.1  # of exact probabilities; costs those 0.05 dB, 0.25 twice that
FEWEST_DECIMALS, SEEN_DECIMALS = 2, 7  # to which those are rounded
MOVING_SHARE = 0.7  # of the epochs; the last ones show the inputs as they are
LARGEST_TURN = np.radians(10)
LARGEST_ZOOM = 0.1  # of the size, either way
LARGEST_SHEAR = 0.15  # pixels sideways for each pixel down
LARGEST_SHIFT = 1 / 28  # of the width and of the height


def outputs_of(function, inputs: np.ndarray) -> np.ndarray:
    """What the forward network says of inputs, refused where it is not finite."""
    outputs = evaluate(function, inputs, CHUNK).astype("float32")
    if len(outputs) != len(inputs) or outputs.ndim < 2:
        text = f"the network must map {len(inputs)} inputs to as many outputs (N, ...)"
        raise ValueError(f"{text}, but gave {outputs.shape}")
    if not np.isfinite(outputs).all():
        raise ValueError(
            "some of the network's outputs are NaN or infinite. If it takes the "
            "logarithm of a softmax, pass the softmax itself: it is taken here, finite"
        )
    return outputs


def choose_logarithm(logarithm: bool | str, outputs: np.ndarray) -> bool:
    """Decide whether to take logarithms, and refuse where there are none."""
    positive = bool(outputs.min() >= 0)
    if logarithm != "auto":
        if logarithm and not positive:
            raise ValueError(
                "logarithm=True needs outputs that are not negative, got "
                f'{outputs.min():.3g}; leave logarithm="auto"'
            )
        return bool(logarithm)
    flat, slack = outputs.reshape(len(outputs), -1), 1e-3
    if decimals := positive and decimals_of(outputs):
        slack = max(slack, floors(decimals)[1] * flat.shape[1])  # of so many roundings
    return positive and bool(np.abs(flat.sum(axis=1) - 1).max() <= slack)


def decimals_of(values: np.ndarray) -> int | None:
    """To how many decimals all values are rounded; None where they are exact."""
    for decimals in range(MOST_DECIMALS + 1):
        rounded = np.round(values.astype("float64"), decimals)
        if (rounded.astype(values.dtype) == values).all():
            return decimals
    return None


def floors(decimals: int | None) -> tuple[float, float]:
    """The largest probability that is not known, and what it counts as then."""
    half = 0.5 * 10.0 ** -(SEEN_DECIMALS if decimals is None else decimals)
    return (LEAST_PROBABILITY if decimals is None else half), half


_warned_of = None  # weak reference to the targets of the last warning


def warn_where_rounded(targets: np.ndarray) -> None:
    """Warn of rounded targets, once for all chunks, which are views of one array."""
    global _warned_of
    whole = targets if targets.base is None else targets.base
    told = _warned_of is not None and _warned_of() is whole
    if told or (decimals := decimals_of(targets)) is None:
        return
    _warned_of = weakref.ref(whole)
    warnings.warn(
        f"the targets are rounded to {decimals} decimals, and this InverseNetwork has "
        "learned from exact outputs. It answers better if it learns from such as you "
        f"receive: method.fit(lambda x: np.round(f(x), {decimals}), inputs)",
        stacklevel=4,
    )


def build_networks(inputs, outputs, hidden, logarithm: bool, seed: int):
    """Build the part that is trained, up to the logits of pixels, and all of g."""
    layers, ops = keras.layers, keras.ops
    seeds = iter(np.random.default_rng(seed).integers(2**31, size=len(hidden) + 1))
    image = is_image(inputs.shape[1:])

    def dense(width, name):
        start = keras.initializers.GlorotUniform(seed=int(next(seeds)))
        return layers.Dense(width, kernel_initializer=start, name=name)

    targets = keras.Input(outputs.shape[1:], name="target")
    values = standard = standardized(targets, outputs, logarithm)
    for number, width in enumerate(hidden, start=1):
        values = dense(width, f"hidden_{number}")(values)
        if image:  # trains in half the epochs, but is less exact
            normalize = layers.BatchNormalization(momentum=0.95, name=f"norm_{number}")
            values = normalize(values)
        values = layers.Activation("relu")(values)
    if hidden:  # the last layer also sees the target: much of x is linear in y
        values = layers.Concatenate()([standard, values])
    values = dense(int(np.prod(inputs.shape[1:])), "values")(values)
    offset, scale = scaling(inputs)
    drawn = layers.Reshape(inputs.shape[1:])(ops.sigmoid(values) if image else values)
    # Not Keras's Rescaling, which would look for channels where these come first.
    return keras.Model(targets, values), keras.Model(targets, drawn * scale + offset)


def standardized(targets, outputs: np.ndarray, logarithm: bool):
    """Each value of symbolic targets with mean 0 and variance 1; which is unknown."""
    values = keras.layers.Reshape((-1,))(targets)
    flat = outputs.reshape(len(outputs), -1)
    if logarithm:
        least, zero = floors(decimals_of(outputs))
        unknown = values <= least
        values = keras.ops.log(keras.ops.where(unknown, zero, values))
        flat = np.log(np.where(flat > least, flat, zero))
    center, spread = center_and_spread(flat)
    values = values * (1 / spread) - center / spread
    if logarithm:
        unknown = keras.ops.cast(unknown, values.dtype)
        values = keras.layers.Concatenate()([values, unknown])
    return values


def train(core, function, inputs, outputs, method: InverseNetwork) -> dict:
    """Train the core on shuffled pairs until those held out are answered no better."""
    (offset, scale), image = scaling(inputs), is_image(inputs.shape[1:])

    def as_answers(inputs):
        return ((inputs - offset) / scale).reshape(len(inputs), -1)

    held_out = max(1, int(HELD_OUT * len(inputs)))
    count = len(inputs) - held_out
    batch = min(count, max(SMALLEST_BATCH, count // STEPS_PER_EPOCH), LARGEST_BATCH)
    steps = count // batch
    decay = keras.optimizers.schedules.CosineDecay
    rate = decay(method.learning_rate, method.epochs * steps)
    crossed = keras.losses.BinaryCrossentropy(from_logits=True)
    loss = crossed if image else keras.losses.MeanSquaredError()
    adam, variables = keras.optimizers.Adam(rate), core.trainable_variables
    adam.build(variables)

    def step(targets, answers):
        with tf.GradientTape() as tape:
            error = loss(answers, core(targets, training=True))
        adam.apply(tape.gradient(error, variables), variables)
        return error

    step = in_graph(step, autograph=False)  # Keras's own would be traced twice
    moving_epochs = int(MOVING_SHARE * method.epochs) * (method.augment and image)
    random = np.random.default_rng(method.seed)
    history = {"loss": [], "held_out_loss": []}
    text = "training the inverse network"
    for epoch in progress_bar(range(method.epochs), text, "epoch"):
        seen, targets = inputs[held_out:], outputs[held_out:]
        if epoch < moving_epochs:
            seen = moved(seen, random)
            targets = outputs_of(function, seen)
        if method.logarithm_ and method.decimals_ is None:
            targets = partly_rounded(targets, random)
        # What does not fill a batch has its turn in another epoch.
        rows = random.permutation(count)[: steps * batch].reshape(steps, batch)
        answers = as_answers(seen)
        errors = [step(targets[row], answers[row]) for row in rows]
        history["loss"].append(float(np.mean(errors)))
        unseen = loss(as_answers(inputs[:held_out]), core(outputs[:held_out]))
        history["held_out_loss"].append(float(unseen))
        if not np.isfinite(unseen):
            raise RuntimeError(
                "training diverged: the loss is no number. A smaller learning_rate "
                f"than {method.learning_rate} usually helps."
            )
        best = int(np.argmin(history["held_out_loss"]))
        if best == epoch:
            weights = core.get_weights()
        elif epoch - max(best, moving_epochs) >= PATIENCE:
            break  # but not among moved images: answers jump once these end
    core.set_weights(weights)
    return history


def partly_rounded(outputs: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Round some of the outputs (N, ...), each to some number of decimals."""
    shape = len(outputs), *[1] * (outputs.ndim - 1)
    scale = 10.0 ** random.integers(FEWEST_DECIMALS, SEEN_DECIMALS + 1, shape)
    rounded = np.round(outputs * scale) / scale
    kept = random.random(shape) >= ROUNDED_SHARE
    return np.where(kept, outputs, rounded).astype("float32")


def moved(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Turn, zoom, shear and shift each image (N, height, width, channels) a little."""
    first = keras.config.image_data_format() == "channels_first"
    if first and images.shape[1] < images.shape[3]:
        return np.moveaxis(moved(np.moveaxis(images, 1, 3), random), 3, 1)
    height, width = images.shape[1:3]

    def draw(largest):
        return random.uniform(-largest, largest, len(images))

    angle, zoom, shear = draw(LARGEST_TURN), 1 + draw(LARGEST_ZOOM), draw(LARGEST_SHEAR)
    across_x, down_x = zoom * np.cos(angle), zoom * (shear - np.sin(angle))
    across_y, down_y = zoom * np.sin(angle), zoom * np.cos(angle)
    x, y = (width - 1) / 2, (height - 1) / 2  # the center, which only a shift moves
    shift_x = x - across_x * x - down_x * y + width * draw(LARGEST_SHIFT)
    shift_y = y - across_y * x - down_y * y + height * draw(LARGEST_SHIFT)
    rows = [across_x, down_x, shift_x, across_y, down_y, shift_y, 0 * zoom, 0 * zoom]
    matrices = np.stack(rows, axis=1).astype("float32")
    settings = {"fill_mode": "nearest", "data_format": "channels_last"}
    return keras.ops.image.affine_transform(images, matrices, **settings).numpy()
