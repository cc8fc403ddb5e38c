"""What is read as plain layers is the model itself; everything else is refused."""

import inspect
from fractions import Fraction
from functools import partial

import keras
import numpy as np
import pytest
from scipy.special import softmax

from netinvert import fibers
from netinvert.certificates import exact_values, verify
from netinvert.forward import tap
from netinvert.models import pretrained

layers = keras.layers


def linear(x):
    return x**2


def relu(x):
    return x**2


class OwnDense(layers.Dense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


class OwnReLU(layers.ReLU):
    def call(self, inputs):
        return 0.5 * super().call(inputs)


class OwnDropout(layers.Dropout):
    def call(self, inputs, training=None):
        return inputs + 1


class OwnSequential(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 3 * super().call(inputs, training=training)


class OwnFunctional(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return 3 * super().call(inputs, training=training)


def stack(*more, shape=(12,), kind=keras.Sequential, **settings):
    return kind([keras.Input(shape, **settings), *more])


def graph(build, shape=(12,)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, build(inputs))


def with_weights(model, seed=0):
    """Give a model random weights, biases too."""
    generator = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([generator.normal(size=shape) * 0.7 for shape in shapes])
    return model


def changed(model, change):
    change(model)
    return model


def lora():
    layer = layers.Dense(3)
    model = with_weights(stack(layer))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    return model


def quantized(mode):
    layer = layers.Dense(4)
    model = with_weights(stack(layer))
    layer.quantize(mode)
    return model


def patched(place, call):
    model = with_weights(stack(layers.Dense(4), layers.ReLU(), layers.Dense(3)))
    target = model if place is None else model.layers[place]
    target.call = call
    return model


def more_weights(layer):
    layer.gain = layer.add_weight(shape=(3,), name="more")


def bypass(x):
    return layers.Add()([x, layers.Dense(12)(x)])


def deep():
    """Rounding adds up over twelve layers; it must not hide what the last one does."""
    last = layers.Conv2D(2, 2, activation="relu")
    parts = [*(D(60, "relu") for _ in range(12)), layers.Reshape((6, 10, 1)), last]
    model = with_weights(stack(*parts, F(), D(3)))
    last.use_bias = False
    return model


def used_twice(x):
    shared = layers.Dense(12)
    return shared(shared(x))


def two_paths(x):
    return layers.Average()([layers.Dense(3)(x), layers.Dense(3)(x)])


def masked(x):
    return layers.Dense(3)(layers.Flatten()(layers.Masking(0.5)(x)))


def half_precision(policy):
    return stack(layers.Dense(4, dtype=policy), layers.Dense(3))


D, F = layers.Dense, layers.Flatten
HOSTILE = {
    # what was "proved" before
    "softmax activation in the middle": lambda: stack(D(4, "softmax"), D(3)),
    "softmax layer in the middle": lambda: stack(D(4), layers.Softmax(), D(3)),
    "flatten channels first": lambda: stack(
        F(data_format="channels_first"), D(3), shape=(2, 2, 3)
    ),
    "lora": lora,
    "subclass of Dense": lambda: stack(OwnDense(3)),
    "subclass of ReLU": lambda: stack(D(5), OwnReLU(), D(3)),
    "subclass of Dropout": lambda: stack(OwnDropout(0.5), D(3)),
    "subclass of Sequential": lambda: stack(D(3), kind=OwnSequential),
    "nested subclass of Sequential": lambda: stack(
        stack(D(4), kind=OwnSequential), D(3)
    ),
    "own linear": lambda: stack(D(3, linear)),
    "own relu": lambda: stack(D(5, relu), D(3)),
    # other kinds
    "own relu in an Activation": lambda: stack(layers.Activation(relu), D(3)),
    "subclass of Model with a graph": lambda: OwnFunctional(
        x := keras.Input((12,)), D(3)(x)
    ),
    "softmax at the end of a nested model": lambda: stack(stack(D(4, "softmax")), D(3)),
    "two softmaxes": lambda: stack(D(4, "softmax"), layers.Softmax()),
    "softmax over another axis": lambda: stack(
        layers.Reshape((4, 3)), layers.Softmax(axis=1)
    ),
    "softmax of a class of one's own": lambda: stack(
        D(3), type("Softmax", (layers.Softmax,), {})()
    ),
    "quantized int8": lambda: quantized("int8"),
    "quantized float8": lambda: quantized("float8"),
    "mixed float16": lambda: half_precision("mixed_float16"),
    "mixed bfloat16": lambda: half_precision("mixed_bfloat16"),
    "pure float16": lambda: half_precision("float16"),
    "float16 input": lambda: stack(D(3), dtype="float16"),
    "integer input": lambda: stack(D(3), dtype="int32"),
    "call of a layer replaced": lambda: patched(0, lambda x: 2 * x),
    "call of a ReLU replaced": lambda: patched(1, lambda x: 2 * x),
    "call of a model replaced": lambda: patched(None, lambda x, **_: x),
    "residual": lambda: stack(graph(bypass), D(3)),
    "used twice": lambda: graph(used_twice),
    "two paths": lambda: graph(two_paths),
    "two outputs": lambda: graph(lambda x: [D(3)(x), D(2)(x)]),
    "dropout that always drops": lambda: graph(
        lambda x: D(3)(layers.Dropout(0.5)(x, training=True))
    ),
    "masking": lambda: graph(masked, (4, 3)),
    "wrapper": lambda: graph(lambda x: layers.TimeDistributed(D(3))(x), (4, 3)),
    "dense on rows": lambda: stack(D(3), F(), shape=(4, 3)),
    "depthwise": lambda: stack(layers.DepthwiseConv2D(2), F(), shape=(4, 4, 2)),
    "dilation": lambda: stack(
        layers.Conv2D(2, 2, dilation_rate=2), F(), shape=(6, 6, 2)
    ),
    "groups": lambda: stack(layers.Conv2D(4, 2, groups=2), F(), shape=(4, 4, 2)),
    "ReLU with a maximum": lambda: stack(D(4), layers.ReLU(6.0), D(3)),
    "ReLU with a threshold": lambda: stack(D(4), layers.ReLU(threshold=1.0), D(3)),
    "ReLU with a maximum as activation": lambda: stack(D(4, layers.ReLU(6.0)), D(3)),
    "PReLU as activation": lambda: stack(D(4, layers.PReLU()), D(3)),
    "batch normalization": lambda: stack(D(4), layers.BatchNormalization(), D(3)),
    "keras.ops": lambda: graph(lambda x: keras.ops.square(D(3)(x))),
    "a weight that is NaN": lambda: changed(
        stack(D(3)), lambda m: m.layers[0].bias.assign([0, np.nan, 0])
    ),
    "a weight that is infinite": lambda: changed(
        stack(D(3)), lambda m: m.layers[0].bias.assign([0, np.inf, 0])
    ),
    "a bias that is not used, far from the input": deep,
    "an object as activation": lambda: stack(D(4, partial(relu)), D(3)),
    "any layer as activation": lambda: stack(D(4, layers.Dropout(0.5)), D(3)),
    "weights that overflow": lambda: changed(
        stack(D(3), D(3)), lambda m: m.set_weights([w + 1e30 for w in m.get_weights()])
    ),
    "weights that vanish": lambda: changed(
        stack(D(3, use_bias=False), D(3, use_bias=False)),
        lambda m: m.set_weights([np.full((12, 3), 1e-41), np.full((3, 3), 1e38)]),
    ),
    "one more weight": lambda: stack(D(3), changed(D(2), more_weights)),
    "two layers of one name": lambda: stack(
        stack(D(4, name="a")), stack(D(3, name="a"), shape=(4,))
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_that_is_not_its_plain_layers_is_refused(name):
    model = HOSTILE[name]()
    shape = model.input_shape[1:]
    first, second = np.random.default_rng(0).random((2, *shape))
    for ask in (
        lambda: fibers.metamer(model, first, second),
        lambda: fibers.layers_of(model),
    ):
        with pytest.raises(ValueError, match=r"[Ll]ayer|call of its own|other values"):
            ask()


HARMLESS = {
    "constraint": lambda: stack(D(5, "relu", kernel_constraint="max_norm"), D(3)),
    "no bias": lambda: stack(D(5, "leaky_relu", use_bias=False), D(3, "softmax")),
    "activation by name": lambda: stack(D(5), layers.Activation("relu"), D(3)),
    "activation that is a layer": lambda: stack(
        D(5, layers.LeakyReLU(negative_slope=0.3)), D(3, layers.Softmax())
    ),
    "slopes": lambda: stack(
        D(6), layers.ReLU(negative_slope=0.5), layers.Dropout(0.5), D(3)
    ),
    "nested": lambda: stack(stack(D(5, "relu")), stack(D(3, "softmax"), shape=(5,))),
    "float64": lambda: stack(
        D(5, "relu", dtype="float64"), D(3, dtype="float64"), dtype="float64"
    ),
    "float64 and a slope": lambda: stack(
        D(5, "leaky_relu", dtype="float64"), D(3, dtype="float64"), dtype="float64"
    ),
    "large inputs": lambda: stack(D(5, "relu"), D(3)),
    "convolution": lambda: stack(
        layers.Conv2D(3, (3, 2), strides=(1, 2), padding="same", activation="relu"),
        layers.AveragePooling2D((2, 3), strides=1, padding="same"),
        layers.Reshape((-1, 2)),
        F(),
        D(4, "relu"),
        D(3, "softmax"),
        shape=(4, 4, 2),
    ),
    "weights replaced": lambda: changed(
        stack(D(3)), lambda m: m.layers[0].kernel.assign(np.eye(12, 3))
    ),
    "activation changed after building": lambda: changed(
        stack(D(5), D(3)),
        lambda m: setattr(m.layers[0], "activation", keras.activations.relu),
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_proved_agrees_with_the_model_in_float64(name):
    model = HARMLESS[name]()
    if "replaced" not in name:
        with_weights(model)
    agrees(model)
    first, second = np.random.default_rng(0).random((2, *model.input_shape[1:]))
    found = fibers.metamer(model, first, second)
    assert verify(found, fibers.layers_of(model)).startswith("Proved")


def agrees(model):
    """Compare the exact values of plain layers with the model run in float64."""
    plain = fibers.layers_of(model)
    # TensorFlow holds the slope of a leaky ReLU as float32, also in float64.
    tolerance = 1e-6 if any(layer.slope not in (0, 0.5) for layer in plain) else 1e-11
    inputs = 2 * np.random.default_rng(1).random((2, *model.input_shape[1:])) - 0.5
    wanted = np.array(in_float64(model)(inputs, training=False))
    for x, outputs in zip(inputs, wanted, strict=True):
        pixels = [Fraction(v) for v in x.ravel().tolist()]
        values = np.array(exact_values(plain, pixels, x.shape), "float64")
        values = values.reshape(outputs.shape)
        if np.allclose(outputs.sum(axis=-1), 1) and (outputs >= 0).all():
            values = softmax(values, axis=-1)
        np.testing.assert_allclose(values, outputs, rtol=tolerance, atol=tolerance)


def in_float64(model):
    text = model.to_json().replace('"float32"', '"float64"')
    # Keras 3.8 does not find a layer as an activation by itself.
    known = {kind.__name__: kind for kind in (layers.LeakyReLU, layers.Softmax)}
    twin = keras.models.model_from_json(text, custom_objects=known)
    twin.set_weights([weight.astype("float64") for weight in model.get_weights()])
    return twin


SHAPES = [(6,), (4, 6), (4, 4, 2), (4, 4, 4, 2)]
ARGUMENTS = {
    "filters": 2,
    "kernel_size": 2,
    "units": 3,
    "rate": 0.25,
    "target_shape": (-1,),
    "pool_size": 2,
    "n": 2,
    "stddev": 0.1,
    "activation": "relu",
    "dims": (1,),
    "num_heads": 1,
    "key_dim": 2,
    "input_dim": 4,
    "output_dim": 3,
    "num_bins": 2,
    "factor": 0.1,
    "height": 3,
    "width": 3,
    "scale": 2.0,
    "layer": layers.Dense(3),
    "equation": "ab,bc->ac",
    "output_shape": 3,
    "max_value": 5.0,
    "noise_shape": None,
}
CLASSES = sorted(
    name
    for name, kind in vars(layers).items()
    if inspect.isclass(kind) and issubclass(kind, keras.Layer)
)


def models_with(kind):
    """Build small models with a layer of a class, in every way that works."""
    needed = {
        name: ARGUMENTS[name]
        for name, one in inspect.signature(kind.__init__).parameters.items()
        if name in ARGUMENTS and one.default is inspect.Parameter.empty
    }
    for shape in SHAPES:
        for start, end in (([], []), ([], [F(), D(3, "softmax")]), ([F(), D(6)], [])):
            try:
                parts = [*start, kind(**needed), *end]
                model = with_weights(stack(*parts, shape=shape))
            except Exception:  # not on such inputs
                continue
            yield model


def test_every_layer_class_of_keras_agrees_or_is_refused():
    read, refused = set(), set()
    for name in CLASSES:
        for model in models_with(getattr(layers, name)):
            try:
                fibers.layers_of(model)
            except ValueError as error:
                assert "ayer" in str(error)
                refused.add(name)
            else:
                # One that hands its input on is in no graph, and not built anew.
                assert name == "Equalization" or agrees(model) is None
                read.add(name)
    assert read >= {
        "Activation",
        "AveragePooling2D",
        "Conv2D",
        "Dense",
        "Dropout",
        "Flatten",
        "LeakyReLU",
        "ReLU",
        "Reshape",
        "Softmax",
    }
    assert len(refused) > 45


def random_model(generator, **settings):
    """A small random model of accepted layers."""
    pick = generator.choice
    bends = ["linear", "relu", "leaky_relu"]
    parts, shape = [], (12,)
    if generator.random() < 0.5:
        shape = (4, 3, 2)
        for _ in range(generator.integers(3)):
            padding = pick(["same", "valid"])
            parts.append(
                layers.Conv2D(
                    2, int(pick([1, 2])), padding=padding, activation=pick(bends)
                )
                if generator.random() < 0.5
                else layers.AveragePooling2D(2, strides=1, padding=padding)
            )
        parts.append(F())
    for _ in range(generator.integers(1, 3)):
        parts.append(D(int(generator.integers(2, 6)), pick(bends)))
        more = [
            layers.ReLU(negative_slope=0.25),
            layers.LeakyReLU(),
            layers.Dropout(0.5),
        ]
        if generator.random() < 0.5:
            parts.append(pick(more))
    parts.append(D(3, pick(["linear", "softmax"]), **settings))
    return stack(*parts, shape=shape)


@pytest.mark.parametrize("seed", range(12))
def test_random_models_agree_and_what_is_wrapped_around_them_is_refused(seed):
    generator = np.random.default_rng(seed)
    model = with_weights(random_model(generator), seed)
    agrees(model)
    shape = model.input_shape[1:]
    first, second = generator.random((2, *shape))
    wraps = [
        lambda: OwnSequential([keras.Input(shape), *model.layers]),
        lambda: stack(model, OwnDense(3), shape=shape),
        lambda: stack(model, layers.Softmax(), D(2), shape=shape),
        lambda: stack(model, layers.Activation(linear), shape=shape),
        lambda: stack(stack(model, kind=OwnSequential, shape=shape), shape=shape),
        lambda: changed(model, lambda m: m.layers[-1].enable_lora(1)),
    ]
    for wrap in wraps:
        wrong = wrap()
        with pytest.raises(ValueError, match=r"[Ll]ayer|call of its own"):
            fibers.metamer(wrong, first, second)


def test_where_model_and_plain_layers_part_is_said(monkeypatch):
    model = with_weights(stack(D(4, "relu", name="one"), D(3, name="two")))
    ordinary = layers.Dense.call

    def odd(self, inputs, training=None):
        return ordinary(self, inputs) + (0.01 if self.name == "two" else 0)

    monkeypatch.setattr(layers.Dense, "call", odd)
    with pytest.raises(ValueError, match=r"Dense 'two' .* part by 0\.01"):
        fibers.layers_of(model)
    assert len(fibers.layers_of(model, "one")) == 2
    monkeypatch.undo()
    monkeypatch.setattr(
        keras.Sequential, "call", lambda self, x, training=None, mask=None: x[:, :3]
    )
    with pytest.raises(ValueError, match="Sequential .* gives other values"):
        fibers.layers_of(model)


def test_the_two_inputs_found_are_run_as_well(monkeypatch):
    model = with_weights(stack(D(4, "relu", name="one"), D(3, name="two")))
    first, second = np.random.default_rng(0).random((2, 12))
    ordinary = layers.Dense.call

    def odd(self, inputs, training=None):
        probing = len(inputs) > 2 or self.name == "one"
        return ordinary(self, inputs) + (0 if probing else 0.01)

    monkeypatch.setattr(layers.Dense, "call", odd)
    fibers.layers_of(model)
    with pytest.raises(ValueError, match=r"Dense 'two' .* part by 0\.01"):
        fibers.metamer(model, first, second)


def test_refusals_name_the_layer_and_the_setting():
    for model, message in (
        (lora(), "'dense.*' .Dense. .* no setting lora_rank=2"),
        (quantized("int8"), "Dense.*not 'int8_from_float32'"),
        (HOSTILE["flatten channels first"](), "data_format='channels_first'"),
        (HOSTILE["ReLU with a maximum"](), r"ReLU.*max_value=6\.0"),
        (HOSTILE["own relu"](), "activation 'relu' of .*test_reading"),
        (HOSTILE["one more weight"](), "other weights .*'more'"),
        (HOSTILE["dropout that always drops"](), "training=True"),
        (HOSTILE["two softmaxes"](), "softmax only as the very last step"),
    ):
        with pytest.raises(ValueError, match=message):
            fibers.layers_of(model)


def test_a_layer_with_a_bypass_is_no_collision_of_the_model():
    model = with_weights(graph(bypass))
    first, second = np.random.default_rng(0).random((2, 12))
    with pytest.raises(ValueError, match="one after the other"):
        fibers.collision(model, first, second)


@pytest.mark.parametrize(
    "layer",
    [
        layers.MaxPooling2D(name="odd"),
        layers.ReLU(max_value=6, name="odd"),
        layers.Conv2D(4, 3, groups=2, name="odd"),
        layers.Conv2D(2, 3, dilation_rate=2, name="odd"),
        layers.Activation("sigmoid", name="odd"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_of_another_kind_is_named(layer):
    inputs = keras.Input((8, 8, 2))
    outputs = layers.Dense(2)(layers.Flatten()(layer(inputs)))
    with pytest.raises(ValueError, match="Layer 'odd'"):
        fibers.layers_of(keras.Model(inputs, outputs))


def test_a_branched_network_is_refused():
    inputs = keras.Input((4,))
    sides = [layers.Dense(3)(inputs), layers.Dense(3)(inputs)]
    model = keras.Model(inputs, layers.Add(name="join")(sides))
    with pytest.raises(ValueError, match="Layer 'join'.*one after the other"):
        fibers.layers_of(model)


def test_a_tap_can_be_asked_about_like_the_model():
    model = pretrained("mlp")
    names = [layer.name for layer in fibers.layers_of(model)]
    assert names[1:3] == ["hidden_1 before relu", "hidden_1"]
    assert [x.name for x in fibers.layers_of(tap(model, "hidden_1"))] == names[:3]
    assert [x.name for x in fibers.layers_of(tap(model, "logits"))] == names
