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

from netinvert.data import load_mnist
from netinvert.forward import as_function, tap
from netinvert.inversion import (
    NO_PROGRESS,
    PROGRESS_AFTER_SECONDS,
    check_count,
    check_inputs,
    check_positive,
    evaluate,
    is_image,
    scaling,
)
from netinvert.models import load_weights, pretrained

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
    8,000 training digits (``python -m netinvert.studies.train inverse``). The network
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


CHUNK = 1000  # inputs run through the forward network at once
HELD_OUT = 0.05  # share of the pairs that only decide which epoch was best
PATIENCE = 10  # epochs of inputs as they are, none of them better: training ends
STEPS_PER_EPOCH = 60  # few pairs come in smaller batches, to keep about this number
SMALLEST_BATCH, LARGEST_BATCH = 16, 128
FAINTEST = 1e-2  # outputs that hardly ever vary are not blown up beyond this
LEAST_PROBABILITY = 1e-30  # a softmax rounds to 0, which has no logarithm
MOVING_SHARE = 0.7  # of the epochs; the last ones show the inputs as they are
LARGEST_TURN = np.radians(10)
LARGEST_ZOOM = 0.1  # of the size, either way
LARGEST_SHEAR = 0.15  # pixels sideways for each pixel down
LARGEST_SHIFT = 1 / 28  # of the width and of the height


def build_networks(inputs, outputs, hidden, logarithm: bool, seed: int):
    """Build the part that is trained, and the whole network around it.

    Parameters
    ----------
    inputs, outputs : float32 arrays (M, ...)
        Of the forward network; only their ranges and spreads are used.
    hidden : tuple of int
    logarithm : bool
    seed : int

    Returns
    -------
    core : keras.Model
        Outputs of f (N, ...) to rows (N, p): logits of pixels, or standardised values.
    network : keras.Model
        Outputs of f to inputs (N, *input_shape). It shares the core's weights.
    """
    layers, ops = keras.layers, keras.ops
    seeds = iter(np.random.default_rng(seed).integers(2**31, size=len(hidden) + 1))
    image = is_image(inputs.shape[1:])

    def dense(width, name):
        start = keras.initializers.GlorotUniform(seed=int(next(seeds)))
        return layers.Dense(width, kernel_initializer=start, name=name)

    targets = keras.Input(outputs.shape[1:], name="target")
    values = standard = standardised(targets, outputs, logarithm)
    for number, width in enumerate(hidden, start=1):
        values = dense(width, f"hidden_{number}")(values)
        if image:  # trains in half the epochs, but is less exact
            normalise = layers.BatchNormalization(momentum=0.95, name=f"norm_{number}")
            values = normalise(values)
        values = layers.Activation("relu")(values)
    if hidden:  # the last layer also sees the target: much of x is linear in y
        values = layers.Concatenate()([standard, values])
    values = dense(int(np.prod(inputs.shape[1:])), "values")(values)
    offset, scale = scaling(inputs)
    drawn = layers.Reshape(inputs.shape[1:])(ops.sigmoid(values) if image else values)
    drawn = layers.Rescaling(scale, offset)(drawn)
    return keras.Model(targets, values), keras.Model(targets, drawn)


def standardised(targets, outputs: np.ndarray, logarithm: bool):
    """Flatten symbolic targets and give each value mean 0 and variance 1."""
    values = keras.layers.Flatten()(targets)
    flat = outputs.reshape(len(outputs), -1)
    if logarithm:
        flat = np.log(np.maximum(flat, LEAST_PROBABILITY))
        values = keras.ops.log(keras.ops.maximum(values, LEAST_PROBABILITY))
    middle, spread = flat.mean(axis=0), flat.std(axis=0)
    spread = np.maximum(spread, FAINTEST * spread.max()) if spread.any() else spread + 1
    return keras.layers.Rescaling(1 / spread, -middle / spread)(values)


def train(core, function, inputs, outputs, settings) -> dict:
    """Train the core by Adam until held-out pairs are answered no better.

    Parameters
    ----------
    core : keras.Model
        From :func:`build_networks`. It is left with its best epoch's weights.
    function : callable
        The forward network, batch -> batch.
    inputs, outputs : float32 arrays (M, ...)
        The pairs, in random order.
    settings : InverseNetwork

    Returns
    -------
    dict
        "loss" and "held_out_loss", lists with one number per epoch.
    """
    offset, scale = scaling(inputs)

    def as_answers(inputs):
        return ((inputs - offset) / scale).reshape(len(inputs), -1)

    held_out = max(1, int(HELD_OUT * len(inputs)))
    unseen = outputs[:held_out], as_answers(inputs[:held_out])
    learned = inputs[held_out:], outputs[held_out:]
    count = len(inputs) - held_out
    batch = min(count, max(SMALLEST_BATCH, count // STEPS_PER_EPOCH), LARGEST_BATCH)
    step, loss = compile_training(
        core, is_image(inputs.shape[1:]), settings, count // batch
    )
    moving = settings.augment and is_image(inputs.shape[1:])
    moving_epochs = int(MOVING_SHARE * settings.epochs) if moving else 0
    random = np.random.default_rng(settings.seed)
    history = {"loss": [], "held_out_loss": []}
    for epoch in tqdm(
        range(settings.epochs),
        desc="training the inverse network",
        unit="epoch",
        delay=PROGRESS_AFTER_SECONDS,
        disable=NO_PROGRESS,
        leave=False,
    ):
        seen, targets = learned
        if epoch < moving_epochs:
            seen = moved(seen, random)
            targets = outputs_of(function, seen)
        answers = as_answers(seen)
        # What does not fill a batch has its turn in another epoch.
        rows = random.permutation(count)[: count // batch * batch].reshape(-1, batch)
        losses = [float(step(targets[row], answers[row])) for row in rows]
        history["loss"].append(float(np.mean(losses)))
        history["held_out_loss"].append(float(loss(*unseen)))
        check_loss(history["held_out_loss"][-1], settings.learning_rate)
        best = int(np.argmin(history["held_out_loss"]))
        if best == epoch:
            weights = core.get_weights()
        elif epoch - max(best, moving_epochs) >= PATIENCE:
            break  # but not among moved images: answers jump once these end
    core.set_weights(weights)
    return history


def outputs_of(function, inputs: np.ndarray) -> np.ndarray:
    """What the forward network says of inputs, refused where it is not finite."""
    outputs = evaluate(function, inputs, CHUNK).astype("float32")
    if len(outputs) != len(inputs) or outputs.ndim < 2:
        raise ValueError(
            f"the forward network must map a batch to a batch (N, ...), but for "
            f"{len(inputs)} inputs it gave outputs of shape {outputs.shape}"
        )
    spoiled = ~np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
    if spoiled.any():
        raise ValueError(
            f"for {spoiled.sum()} of {len(inputs)} inputs the forward network's "
            f"outputs are NaN or infinite. If it takes the logarithm of a softmax, "
            "pass the softmax itself: its logarithm is taken here, without infinities"
        )
    return outputs


def moved(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Turn, zoom, shear and shift each image (N, height, width, channels) a little."""
    height, width = images.shape[1:3]

    def draw(largest):
        return random.uniform(-largest, largest, len(images))

    angle, zoom, shear = draw(LARGEST_TURN), 1 + draw(LARGEST_ZOOM), draw(LARGEST_SHEAR)
    across_x, down_x = zoom * np.cos(angle), zoom * (shear - np.sin(angle))
    across_y, down_y = zoom * np.sin(angle), zoom * np.cos(angle)
    x, y = (width - 1) / 2, (height - 1) / 2  # the center, which only a shift moves
    shift_x = x - across_x * x - down_x * y + width * draw(LARGEST_SHIFT)
    shift_y = y - across_y * x - down_y * y + height * draw(LARGEST_SHIFT)
    none = np.zeros(len(images))
    matrices = np.stack(
        [across_x, down_x, shift_x, across_y, down_y, shift_y, none, none], axis=1
    )
    return keras.ops.image.affine_transform(
        images, matrices.astype("float32"), "bilinear", "nearest"
    ).numpy()


def compile_training(core, image: bool, settings, steps_per_epoch: int):
    """Compile one step of Adam; beside it the loss that it lowers, not compiled."""
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, settings.epochs * steps_per_epoch
    )
    optimizer = keras.optimizers.Adam(rate)
    weights = core.trainable_variables
    optimizer.build(weights)

    def loss(targets, answers, training=False):
        drawn = core(targets, training=training)
        if image:
            error = tf.nn.sigmoid_cross_entropy_with_logits(answers, drawn)
        else:
            error = (answers - drawn) ** 2
        return tf.reduce_mean(error)

    @tf.function  # XLA gains little here, and costs a second for each fit
    def step(targets, answers):
        with tf.GradientTape() as tape:
            value = loss(targets, answers, training=True)
        optimizer.apply(tape.gradient(value, weights), weights)
        return value

    return step, loss


def check_loss(loss: float, learning_rate: float) -> None:
    """Stop a training that diverges, and say what to do."""
    if not np.isfinite(loss):
        raise RuntimeError(
            f"training diverged: the loss is {loss}. A smaller learning_rate than "
            f"{learning_rate} usually helps."
        )
