"""A tap shows what a layer of the given network says, and leaves it as it was."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import layers

from netinvert.forward import as_function, before_relu, input_shape_of, tap


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


@pytest.fixture
def images():
    return np.random.default_rng(0).random((3, 8, 8, 1)).astype("float32")


def sequential(*more):
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "relu", name="hidden"), *more]
    )


def functional():
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, "relu", name="hidden")(inputs)
    joined = layers.Concatenate()([hidden, inputs])
    return keras.Model(inputs, layers.Dense(3, "softmax", name="last")(joined))


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="dropout"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, "softmax"),
        ]
    )


def nested():
    inputs = keras.Input((4,))
    values = layers.Dense(4, name="first")(inputs)
    return keras.Model(inputs, functional()(values))


def snapshot(model):
    """All there is to a model: its layers, its graph and its weights."""
    graph = [
        (layer.name, len(layer._inbound_nodes), len(layer._outbound_nodes))
        for layer in model._flatten_layers()
    ]
    return model.to_json(), graph, [weight.tobytes() for weight in model.get_weights()]


def log_sum_exp(values):
    return np.log(np.exp(values).sum(axis=-1, keepdims=True))


HEADS = {
    "fused softmax": [layers.Dense(3, "softmax")],
    "softmax layer": [layers.Dense(3), layers.Softmax()],
    "activation layer": [layers.Dense(3), layers.Activation("softmax")],
    "as in mixed precision": [layers.Dense(3, "softmax"), layers.Activation("linear")],
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_logits_are_the_values_before_the_softmax(head, vectors):
    model = sequential(*head)
    logits, probabilities = tap(model, "logits")(vectors), model(vectors)
    np.testing.assert_allclose(keras.ops.softmax(logits), probabilities, atol=1e-6)
    assert np.ptp(log_sum_exp(logits)) > 1e-3, "these are not log-probabilities"


def test_logits_of_a_fused_sigmoid(vectors):
    model = sequential(layers.Dense(2, "sigmoid"))
    logits = tap(model, "logits")(vectors).numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), model(vectors), atol=1e-6)


def test_logits_of_a_softmax_applied_as_an_operation(vectors):
    inputs = keras.Input((4,))
    values = layers.Dense(3, name="values")(inputs)
    model = keras.Model(inputs, keras.ops.softmax(values))
    expected = tap(model, "values")(vectors)
    np.testing.assert_array_equal(tap(model, "logits")(vectors), expected)


def test_logits_of_a_convolution_with_a_fused_sigmoid(images):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(2, 3, activation="sigmoid")]
    )
    logits = tap(model, "logits")(images).numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), model(images), atol=1e-6)


def test_a_linear_network_already_gives_logits():
    for model in (sequential(layers.Dense(2)), sequential(layers.Activation("linear"))):
        assert tap(model, "logits") is model


def test_a_network_that_ends_in_relu_has_no_logits():
    with pytest.raises(ValueError, match=r"ends in 'hidden' .*'relu'.* by name"):
        tap(sequential(), "logits")


def test_a_linear_layer_with_a_call_of_its_own_may_have_no_logits():
    class Softmaxed(layers.Dense):
        def call(self, inputs, training=None):
            return keras.ops.softmax(super().call(inputs))

    with pytest.raises(ValueError, match="Softmaxed.* has no logits"):
        tap(sequential(Softmaxed(3)), "logits")


def test_a_layer_called_logits_is_found_where_there_is_no_softmax(vectors):
    model = sequential(layers.Dense(3, name="logits"), layers.ReLU())
    np.testing.assert_array_equal(
        keras.ops.relu(tap(model, "logits")(vectors)), model(vectors)
    )


@pytest.mark.parametrize("layer", ["hidden", 0, -2])
def test_a_layer_is_tapped_by_name_or_index(layer, vectors):
    model = sequential(layers.Dense(3, "softmax"))
    kernel, bias = model.get_weights()[:2]
    expected = np.maximum(vectors @ kernel + bias, 0)
    np.testing.assert_allclose(tap(model, layer)(vectors), expected, atol=1e-6)


def test_functional_networks_with_a_bypass_are_tapped(vectors):
    model = functional()
    probabilities = keras.ops.softmax(tap(model, "logits")(vectors))
    np.testing.assert_allclose(probabilities, model(vectors), atol=1e-6)
    assert tap(model, "hidden")(vectors).shape == (6, 5)


@pytest.mark.parametrize("build", [sequential, functional, convolutional, nested])
def test_the_given_network_is_not_changed(build, vectors, images):
    model = build()
    before = snapshot(model)
    names = ["conv", "norm"] if build is convolutional else ["hidden"]
    if build is not sequential:
        names.append("logits")
    for name in names:
        tap(model, name)(images if build is convolutional else vectors)
    assert snapshot(model) == before


@pytest.mark.parametrize("build", [functional, nested])
@pytest.mark.parametrize("layer", ["hidden", "logits"])
def test_the_tap_follows_when_the_network_is_trained(build, layer, vectors):
    model = build()
    forward = tap(model, layer)
    before = forward(vectors).numpy()
    model.compile("sgd", "mse")
    model.fit(vectors, np.eye(3)[[0, 1, 2, 0, 1, 2]], verbose=0)
    after = forward(vectors).numpy()
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(after, tap(model, layer)(vectors))


def test_a_layer_inside_a_nested_network_is_tapped(vectors):
    model = nested()
    inner = model.layers[-1]
    values = model.get_layer("first")(vectors)
    expected = tap(inner, "hidden")(values)
    np.testing.assert_allclose(tap(model, "hidden")(vectors), expected, atol=1e-6)
    probabilities = keras.ops.softmax(tap(model, "logits")(vectors))
    np.testing.assert_allclose(probabilities, model(vectors), atol=1e-6)


def test_a_layer_two_networks_deep_is_tapped(vectors):
    model = keras.Sequential([keras.Input((4,)), nested()])
    expected = tap(model.layers[0], "hidden")(vectors)
    np.testing.assert_allclose(tap(model, "hidden")(vectors), expected, atol=1e-6)


def test_a_linear_nested_network_already_gives_logits():
    model = keras.Sequential([keras.Input((4,)), sequential(layers.Dense(3))])
    assert tap(model, "logits") is model


def test_batch_normalization_and_dropout_rest_in_a_tap(images):
    model = convolutional()
    mean, variance = np.arange(4.0), np.array([1.0, 4.0, 9.0, 16.0])
    model.get_layer("norm").set_weights([np.ones(4), np.zeros(4), mean, variance])
    conv = tap(model, "conv")(images).numpy()
    expected = (conv - mean) / np.sqrt(variance + 1e-3)
    for layer in ("norm", "dropout"):
        forward = tap(model, layer)
        values = forward(images, training=False)
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_layers_that_another_network_uses_too_are_tapped(vectors):
    model = sequential(layers.Dense(3, "softmax"))
    other = keras.Sequential([keras.Input((4,)), *model.layers])
    for layer in ("hidden", "logits"):
        expected = tap(model, layer)(vectors)
        np.testing.assert_allclose(tap(other, layer)(vectors), expected, atol=1e-6)


def test_a_tap_can_be_saved_and_loaded(vectors, tmp_path):
    forward = tap(functional(), "logits")
    forward.save(tmp_path / "tap.keras")
    loaded = keras.saving.load_model(tmp_path / "tap.keras")
    np.testing.assert_allclose(loaded(vectors), forward(vectors), atol=1e-6)


def test_an_unknown_layer_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="no layer 'hiden'") as error:
        tap(nested(), "hiden")
    for name in ("first", "hidden", "last"):
        assert repr(name) in str(error.value)
    with pytest.raises(ValueError, match="no layer 7"):
        tap(sequential(), 7)
    for layer in True, None, np.array([0, 1]):
        with pytest.raises(ValueError, match="name or index"):
            tap(sequential(), layer)


def test_an_index_may_come_from_numpy():
    assert tap(functional(), np.argmax([0, 1])).output_shape == (None, 5)


def test_an_unbuilt_network_says_how_to_build_it():
    with pytest.raises(ValueError, match=r"not been built.*keras\.Input"):
        tap(keras.Sequential([layers.Dense(3)]), 0)


def test_a_subclassed_network_says_what_to_do_instead(vectors):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = layers.Dense(3, name="hidden")

        def call(self, inputs):
            return self.hidden(inputs)

    model = Own()
    model(vectors)
    with pytest.raises(ValueError, match=r"subclassed.*lambda x"):
        tap(model, "hidden")
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="subclassed"):
        tap(keras.Model(inputs, model(inputs)), "hidden")


def test_two_inputs_are_refused_with_advice():
    arms = [keras.Input((4,), name="left"), keras.Input((2,), name="right")]
    model = keras.Model(arms, layers.Concatenate(name="joined")(arms))
    with pytest.raises(ValueError, match=r"2 inputs \('left', 'right'\).*constant"):
        tap(model, "joined")


def test_of_two_outputs_one_is_chosen_by_name(vectors):
    inputs = keras.Input((4,))
    digit = layers.Dense(3, "softmax", name="digit")(inputs)
    slant = layers.Dense(1, name="slant")(inputs)
    model = keras.Model(inputs, [digit, slant])
    with pytest.raises(ValueError, match="2 outputs"):
        tap(model, "logits")
    chosen = tap(model, "digit")
    np.testing.assert_array_equal(chosen(vectors), model(vectors)[0])
    logits = tap(chosen, "logits")(vectors)
    np.testing.assert_allclose(keras.ops.softmax(logits), chosen(vectors), atol=1e-6)


def test_a_layer_used_twice_has_no_single_output():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    model = keras.Model(inputs, shared(shared(inputs)))
    with pytest.raises(ValueError, match="'shared' is used 2 times"):
        tap(model, "shared")


def test_the_same_name_in_two_nested_networks_is_ambiguous():
    inputs = keras.Input((4,))
    values = sequential(layers.Dense(4))(inputs)
    model = keras.Model(inputs, sequential(layers.Dense(3, "softmax"))(values))
    with pytest.raises(ValueError, match="Several nested models have a layer 'hidden'"):
        tap(model, "hidden")


def test_only_a_keras_model_can_be_tapped():
    with pytest.raises(ValueError, match="needs a Keras model, got function"):
        tap(lambda x: x, "logits")


class Tripled(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 3 * super().call(inputs, training=training)


class TripledGraph(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return 3 * super().call(inputs, training=training)


class Quiet(keras.Sequential):
    """A subclass that computes what its layers do."""


def test_a_model_with_a_call_of_its_own_is_not_cut(vectors):
    inside = Tripled([keras.Input((4,)), layers.Dense(3, "softmax", name="last")])
    given = keras.Input((4,))
    graph = TripledGraph(given, layers.Dense(3, name="last")(given))
    for model in (inside, graph, sequential(layers.Dense(4), inside)):
        for name in ("last", "logits"):
            if model.name == inside.name or model is graph or name == "last":
                with pytest.raises(ValueError, match="a call of its own"):
                    tap(model, name)
    quiet = Quiet([keras.Input((4,)), layers.Dense(3, "softmax", name="last")])
    np.testing.assert_array_equal(tap(quiet, "last")(vectors), quiet(vectors))
    patched = sequential(layers.Dense(3, name="last"))
    patched.call = lambda x, **_: x
    with pytest.raises(ValueError, match="a call of its own"):
        tap(patched, "last")


def test_a_tap_is_compared_with_the_model_on_a_probe(monkeypatch):
    model = sequential(layers.Dense(3, "softmax"))
    model.layers[-1].call = lambda x, training=None: keras.ops.softmax(x[:, :3])
    with pytest.raises(ValueError, match="On a probe, model .* differ by"):
        tap(model, "logits")
    model = sequential(layers.Dense(3, name="last"))
    monkeypatch.setattr(
        keras.Sequential, "call", lambda self, x, training=None, mask=None: x[:, :3]
    )
    with pytest.raises(ValueError, match="On a probe, model .* differ by"):
        tap(model, "last")


def test_the_logits_of_a_quantized_layer_are_its_own(vectors):
    model = sequential(layers.Dense(3, "softmax"))
    model.layers[-1].quantize("int8")
    logits = tap(model, "logits")(vectors)
    np.testing.assert_allclose(keras.ops.softmax(logits), model(vectors), atol=1e-6)


class OwnDense(layers.Dense):
    def call(self, inputs, training=None):
        return keras.ops.relu(super().call(inputs) - 1)


class OwnReLU(layers.ReLU):
    def call(self, inputs):
        return keras.ops.sigmoid(inputs)


def test_only_what_ends_in_a_relu_of_keras_is_taken_before_it(vectors):
    for last in (layers.Dense(3, "relu"), layers.ReLU(), layers.Activation("relu")):
        model = sequential(layers.Dense(3), last)
        before, rectified = before_relu(model)
        assert rectified
        np.testing.assert_allclose(np.maximum(before(vectors), 0), model(vectors))
    for last in (OwnDense(3, "relu"), OwnReLU(), layers.ReLU(6.0), layers.Dense(2)):
        model = sequential(last)
        assert before_relu(model) == (model, False)
    for model in (
        Tripled([keras.Input((4,)), layers.Dense(3, "relu")]),
        sequential(Tripled([keras.Input((5,)), layers.ReLU()])),
    ):
        assert before_relu(model) == (model, False)
    with pytest.raises(ValueError, match=r"ends in 'own_dense.*\(OwnDense"):
        tap(sequential(OwnDense(3, "softmax")), "logits")


def test_predict_is_no_forward_network():
    model = sequential()
    for habit in (
        model.predict,
        model.predict_on_batch,
        partial(model.predict, verbose=0),
    ):
        with pytest.raises(ValueError, match="Pass the model itself"):
            as_function(habit)
    assert as_function(model.call)(np.ones((1, 4), "float32")).shape == (1, 5)


def test_a_subclassed_model_tells_the_shape_that_keras_noted(vectors):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = layers.Dense(3)

        def call(self, inputs):
            return self.hidden(inputs)

    model = Own()
    assert input_shape_of(model) is None
    model(vectors)
    assert input_shape_of(model) == (4,)
