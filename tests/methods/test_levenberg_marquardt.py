"""Second-order search: known answers, bounds, precision, covariances, codes."""

import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import lsq_linear

import netinvert as ni
from netinvert.methods.autoencoder import train_autoencoder
from netinvert.methods.levenberg_marquardt import TRIALS, solvable
from netinvert.methods.prior_covariance import Spread

RANDOM = np.random.default_rng(0)
WIDTHS = (128, "relu"), (64, "relu"), (10, None)
MATRIX = RANDOM.normal(size=(12, 3))


def linear(batch):
    """Twelve numbers to three, in whatever precision the batch has."""
    return tf.matmul(batch, tf.constant(MATRIX, batch.dtype))


def doubled(batch):
    """The same, always in float64."""
    return linear(tf.cast(batch, "float64"))


@pytest.fixture(scope="module")
def digits():
    (x_train, _), (x_test, _) = ni.load_mnist()
    return x_train, x_test[:64]


@pytest.fixture(scope="module")
def forward():
    return ni.tap(ni.pretrained("mlp"), "logits")


def largest_miss(result):
    return np.abs(result.outputs - result.targets).max(axis=1)


def test_without_bounds_a_linear_network_gives_the_nearest_input_that_fits():
    start = RANDOM.normal(size=12)
    targets = RANDOM.normal(size=(5, 3))
    method = ni.LevenbergMarquardt(start=start)
    result = ni.invert(doubled, targets, method, bounds=None, input_shape=(12,))
    nearest = start + (targets - start @ MATRIX) @ np.linalg.pinv(MATRIX)
    np.testing.assert_allclose(result.inputs, nearest, atol=1e-9)
    assert largest_miss(result).max() < 1e-12


class OwnCovariance:
    """Far more room for the first values, and some values that move together."""

    scale = np.geomspace(1, 0.01, 12)
    factor = np.random.default_rng(1).normal(size=(12, 2))

    def fit(self, forward, inputs, start):
        return self

    def at(self, inputs, targets):
        return Spread(np.tile(self.scale, (len(inputs), 1)), self.factor, 0.5)


def test_nearest_is_what_the_covariance_says():
    targets = RANDOM.normal(size=(4, 3))
    method = ni.LevenbergMarquardt(start=np.zeros(12), covariance=OwnCovariance())
    result = ni.invert(doubled, targets, method, bounds=None, input_shape=(12,))
    covariance = OwnCovariance.factor @ OwnCovariance.factor.T + 0.5 * np.eye(12)
    covariance = OwnCovariance.scale[:, None] * covariance * OwnCovariance.scale
    steer = covariance @ MATRIX
    expected = targets @ np.linalg.solve(MATRIX.T @ steer, steer.T)
    np.testing.assert_allclose(result.inputs, expected, atol=1e-8)


@pytest.mark.parametrize("covariance", ["identity", OwnCovariance()])
def test_in_a_box_every_output_that_can_be_had_is_had(covariance):
    truth = RANDOM.uniform(size=(40, 12)).round(1)
    truth[:, :6] = truth[:, :6].round()  # many values at their bounds
    targets = truth @ MATRIX
    method = ni.LevenbergMarquardt(start=np.full(12, 0.5), covariance=covariance)
    result = ni.invert(doubled, targets, method, input_shape=(12,))
    assert result.inputs.min() >= 0 and result.inputs.max() <= 1
    assert np.quantile(largest_miss(result), 0.9) < 1e-10
    assert (result.inputs == 0).any(), "the test needs targets that the box restricts"


def test_what_cannot_be_had_in_the_box_is_approached_as_closely_as_possible():
    targets = 30 * RANDOM.normal(size=(6, 3))
    method = ni.LevenbergMarquardt(start=np.full(12, 0.5))
    result = ni.invert(doubled, targets, method, input_shape=(12,))
    assert not result.converged.any()
    assert np.isfinite(result.inputs).all()
    for target, residual in zip(targets, result.residual, strict=True):
        best = lsq_linear(MATRIX.T, target, bounds=(0, 1), tol=1e-12)
        assert residual <= (2 * best.cost / 3) * 1.02
        assert residual >= (2 * best.cost / 3) * 0.999


def test_bounds_may_differ_from_value_to_value():
    low = np.arange(12.0)
    high = low + np.geomspace(0.1, 10, 12)
    truth = RANDOM.uniform(low, high, (8, 12))
    method = ni.LevenbergMarquardt()
    result = ni.invert(
        doubled, truth @ MATRIX, method, bounds=(low, high), input_shape=(12,)
    )
    assert (result.inputs >= low).all() and (result.inputs <= high).all()
    assert largest_miss(result).max() < 1e-9


def test_a_start_outside_the_box_is_put_inside_before_it_is_judged():
    outside = np.full(12, 7.0)
    targets = np.stack([outside @ MATRIX, RANDOM.uniform(size=12) @ MATRIX])
    results = [
        ni.invert(doubled, targets, ni.LevenbergMarquardt(start), input_shape=(12,))
        for start in (outside, outside.clip(0, 1))
    ]
    assert results[0].history["inputs"].max() <= 1
    np.testing.assert_array_equal(results[0].inputs, results[1].inputs)
    assert largest_miss(results[0])[1] < 1e-9


@pytest.mark.parametrize("start", [None, np.array(["black"] * 12)])
def test_a_start_without_numbers_is_refused(start):
    method = ni.LevenbergMarquardt(start)
    with pytest.raises(ValueError, match="an array of real numbers or a method"):
        ni.invert(doubled, np.zeros((1, 3)), method, input_shape=(12,))


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_logits_of_digits_are_matched_to_the_last_digits(name, bounds, digits):
    x_train, x_test = digits
    forward = ni.tap(ni.pretrained(name), "logits")
    method = ni.LevenbergMarquardt().fit(forward, x_train[:500])
    result = ni.invert(forward, forward(x_test), method, bounds=bounds)
    assert (largest_miss(result) < 1e-5).mean() >= 0.99
    assert result.converged.all()
    assert (result.outputs.argmax(axis=1) == result.targets.argmax(axis=1)).all()
    if bounds:
        assert result.inputs.min() >= 0 and result.inputs.max() <= 1


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_in_float64_they_are_matched_to_ten_digits(bounds, digits, forward):
    double = {"dtype": "float64"}  # for every layer: each one casts what it is given
    layers = [keras.layers.Dense(n, a, **double) for n, a in WIDTHS]
    flatten = keras.layers.Flatten(**double)
    model = keras.Sequential([keras.Input((28, 28, 1), **double), flatten, *layers])
    model.set_weights(forward.get_weights())
    targets = model(digits[1]).numpy()
    assert targets.dtype == "float64"
    result = ni.invert(model, targets, ni.LevenbergMarquardt(), bounds=bounds)
    assert result.inputs.dtype == "float64"
    assert (largest_miss(result) < 1e-10).mean() >= 0.99


def test_a_relu_at_the_end_is_seen_through(digits):
    x_train, x_test = digits
    model = ni.pretrained("mlp")
    method = ni.LevenbergMarquardt().fit(model, x_train[:500])
    forward = ni.tap(model, "hidden_2")
    targets = forward(x_test).numpy()
    assert (targets == 0).mean() > 0.2
    seen = ni.invert(forward, targets, method)
    unseen = ni.invert(lambda batch: forward(batch), targets, method)
    assert seen.converged.mean() > 0.9 > unseen.converged.mean()
    assert seen.outputs.min() == 0

    inputs = keras.Input(forward.input_shape[1:])
    same = ni.tap(model, "hidden_2")
    separate = keras.Sequential(
        [inputs, *same.layers[1:-1], keras.layers.Dense(64), keras.layers.ReLU()]
    )
    separate.set_weights(forward.get_weights())
    again = ni.invert(separate, targets, method)
    np.testing.assert_allclose(again.residual, seen.residual, atol=1e-4)


def test_a_unit_that_may_be_off_is_not_held_where_it_is():
    weights = np.array([[1.0, 0.0], [1.0, 1.0]])
    forward = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "relu")])
    forward.set_weights([weights, np.zeros(2)])
    method = ni.LevenbergMarquardt(start=np.array([0.0, -2.0]))
    result = ni.invert(forward, [[1.0, 0.0]], method, bounds=None)
    # Along (1, 1) only, though the second unit sees that too.
    np.testing.assert_allclose(result.inputs, [[1.5, -0.5]], atol=1e-5)


def test_the_search_ends_when_all_targets_fit():
    calls = []

    def watched(batch):
        call = tf.py_function(lambda values: calls.append(len(values)), [batch], [])
        with tf.control_dependencies([call]):
            return doubled(batch)

    method = ni.LevenbergMarquardt()
    targets = RANDOM.normal(size=(5, 3))
    result = ni.invert(watched, targets, method, bounds=None, input_shape=(12,))
    trials = len(calls) - 3  # the check, the start and the judge's
    steps = trials // (1 + TRIALS)
    errors = result.history["objective"].max(axis=1)
    assert errors[steps] < 1e-29 < errors[steps - 1]
    assert trials == steps * (1 + TRIALS)


def test_a_target_that_fits_leaves_the_batch(forward, digits):
    x_train, x_test = digits
    sizes = []

    def watched(batch):
        count = tf.py_function(lambda values: sizes.append(len(values)), [batch], [])
        with tf.control_dependencies([count]):
            return forward(tf.identity(batch))

    method = ni.LevenbergMarquardt().fit(forward, x_train[:500])
    ni.invert(watched, forward(x_test), method, input_shape=(28, 28, 1))
    inside = [size for size in sizes if size not in (1, len(x_test))]
    assert inside == sorted(inside, reverse=True)
    assert min(inside) < len(x_test) / 2


def test_where_nothing_depends_on_the_input_it_stays_at_the_start():
    def constant(batch):
        return 0 * batch[:, :2] + 1

    result = ni.invert(
        constant, [[1.0, 3.0]], ni.LevenbergMarquardt(), input_shape=(4,)
    )
    np.testing.assert_allclose(result.inputs, 0.5)
    assert not result.converged.any()


def test_a_step_to_where_the_network_gives_nan_is_taken_shorter():
    def root(batch):
        return tf.sqrt(batch - 0.5)  # from 0.9 a whole step leads to 0.22

    method = ni.LevenbergMarquardt(start=np.full(1, 0.9))
    result = ni.invert(root, [[0.1], [-1.0]], method, input_shape=(1,))
    np.testing.assert_allclose(result.inputs[0], 0.51, atol=1e-5)
    assert result.inputs[1, 0] >= 0.5
    np.testing.assert_array_equal(result.converged, [True, False])


def test_along_the_covariance_it_stays_closer_to_the_data(digits, forward):
    x_train, x_test = digits
    targets = forward(x_test)
    errors = {}
    for covariance in "identity", "inputs":
        method = ni.LevenbergMarquardt(covariance=covariance).fit(forward, x_train)
        result = ni.invert(forward, targets, method)
        assert result.converged.mean() > 0.95
        errors[covariance] = ni.metrics.mse(result.inputs, x_test).mean()
    assert errors["inputs"] < 0.85 * errors["identity"]


def test_it_polishes_what_another_method_proposes(digits, forward):
    x_train, x_test = digits
    targets = forward(x_test)
    rough = ni.InverseNetwork(hidden=(64,), epochs=3)
    polish = ni.LevenbergMarquardt(start=rough).fit(forward, x_train)
    before, after = (ni.invert(forward, targets, method) for method in (rough, polish))
    np.testing.assert_allclose(
        after.history["inputs"][0], before.inputs[:16], atol=1e-6
    )
    assert after.residual.max() < 1e-9 < before.residual.min()
    moved = ni.metrics.mse(after.inputs, before.inputs).mean()
    assert moved < 0.2 * ni.metrics.mse(before.inputs, x_test).mean()


@pytest.fixture(scope="module")
def autoencoder(digits):
    return train_autoencoder(digits[0], 12, epochs=5)


@pytest.mark.parametrize("start", ["estimate", "mean"])
def test_in_a_code_it_draws_what_the_decoder_can(autoencoder, start, digits, forward):
    x_train, x_test = digits
    _, decoder = autoencoder.layers
    drawn = decoder(np.random.default_rng(0).normal(size=(20, 12)).astype("float32"))
    targets = forward(drawn).numpy()
    method = ni.LevenbergMarquardt(start, autoencoder=autoencoder)
    result = ni.invert(forward, targets, method.fit(forward, x_train))
    assert result.converged.mean() > 0.7
    again = autoencoder(result.inputs).numpy()
    nearby = ni.metrics.mse(again, result.inputs).mean()
    assert nearby < 0.5 * ni.metrics.mse(autoencoder(x_test), x_test).mean()
    code = method.code_
    first = code.regression_(targets) if start == "estimate" else np.zeros((20, 12))
    drawn = decoder((code.center_ + code.spread_ * first)[:16].astype("float32"))
    np.testing.assert_allclose(result.history["inputs"][0], drawn, atol=1e-4)


def test_a_search_in_a_code_can_be_pickled(digits, forward):
    x_train, x_test = digits
    method = ni.LevenbergMarquardt("estimate", autoencoder="digits")
    targets = forward(x_test[:5])
    for one in method, method.fit(forward, x_train[:500]):
        again = pickle.loads(pickle.dumps(one))
    found = [ni.invert(forward, targets, one).inputs for one in (method, again)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


def test_a_layer_of_512_outputs_is_matched():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(512, "tanh")]
    forward = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    truth = RANDOM.uniform(size=(24, 28, 28, 1))  # more than one turn
    result = ni.invert(forward, forward(truth), ni.LevenbergMarquardt(), bounds=None)
    assert result.residual.max() < 1e-10


def test_a_jacobian_beyond_all_memory_is_refused():
    def wide(batch):
        return tf.tile(batch, (1, 2**10))

    with pytest.raises(ValueError, match=r"1,048,576 x 1,024 numbers, 4.0 GB: tap"):
        ni.invert(wide, np.ones(2**20), ni.LevenbergMarquardt(), input_shape=(2**10,))


def test_what_the_decoder_draws_is_bounded_while_it_is_searched(
    autoencoder, digits, forward
):
    x_train, x_test = digits
    bounds = 0.3, 0.9
    targets = forward(autoencoder(x_test).numpy().clip(*bounds))
    method = ni.LevenbergMarquardt("estimate", autoencoder=autoencoder)
    result = ni.invert(forward, targets, method.fit(forward, x_train), bounds=bounds)
    assert result.converged.mean() > 0.5


def test_more_starts_find_what_one_does_not():
    def waves(batch):
        return tf.reduce_sum(tf.sin(9 * batch) + batch, axis=1, keepdims=True)

    targets = np.linspace(-1.5, 3.5, 12)[:, None]
    one, many = (
        ni.invert(
            waves,
            targets,
            ni.LevenbergMarquardt(start=np.array([0.1, 0.9]), restarts=restarts),
            input_shape=(2,),
        )
        for restarts in (1, 6)
    )
    assert (many.residual <= one.residual).all()
    assert many.converged.sum() > one.converged.sum()


def test_of_two_starts_that_both_fit_neighbours_do_not_decide(digits, forward):
    method = ni.LevenbergMarquardt(start="noise", restarts=2)
    targets = forward(digits[1]).numpy()
    together = ni.invert(forward, targets, method).inputs[:12]
    alone = [ni.invert(forward, target, method).inputs[0] for target in targets[:12]]
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_neighbours_that_start_elsewhere_take_their_own_steps():
    def curved(batch):
        return tf.tanh(doubled(batch) / 3)

    starts = RANDOM.uniform(size=(4, 12))
    targets = curved(RANDOM.uniform(size=(4, 12))).numpy()
    together = ni.invert(
        curved, targets, ni.LevenbergMarquardt(start=starts), input_shape=(12,)
    )
    assert together.converged.all()
    for index, start in enumerate(starts):
        method = ni.LevenbergMarquardt(start=start)
        alone = ni.invert(curved, targets[index], method, input_shape=(12,))
        np.testing.assert_allclose(together.inputs[index], alone.inputs[0], atol=1e-9)


def test_its_history_goes_from_the_start_to_the_answer(digits, forward):
    x_train, x_test = digits
    method = ni.LevenbergMarquardt(steps=6).fit(forward, x_train[:100])
    result = ni.invert(forward, forward(x_test), method, batch_size=40, progress=False)
    history = result.history
    np.testing.assert_array_equal(history["step"], range(7))
    np.testing.assert_allclose(
        history["inputs"][0, 3], x_train[:100].mean(0), atol=1e-6
    )
    np.testing.assert_array_equal(history["inputs"][-1], result.inputs[:16])
    np.testing.assert_allclose(history["objective"][-1], result.residual, atol=1e-9)
    assert (np.diff(history["objective"], axis=0) <= 0).all()


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"restarts": 1.5}, "restarts must be a whole number"),
        ({"start": "zeros"}, 'start must be "mean", "noise"'),
        ({"start": "estimate"}, 'start must be "mean", "noise"'),
        ({"covariance": "euclid"}, "covariance must be"),
        ({"covariance": OwnCovariance}, "covariance must be"),
        ({"autoencoder": "faces"}, "autoencoder must be"),
        ({"autoencoder": "digits", "covariance": "inputs"}, "leave one of the two out"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        ni.LevenbergMarquardt(**settings)


def test_a_function_without_a_slope_is_refused():
    for function, complaint in [
        (lambda batch: tf.round(batch), "no gradient reaches the inputs"),
        (lambda batch: tf.constant(np.sin(batch)), "TensorFlow or Keras operations"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            ni.invert(function, [[0.5]], ni.LevenbergMarquardt(), input_shape=(1,))


def test_whoever_inverts_many_networks_is_not_told_that_tracing_is_expensive(caplog):
    with caplog.at_level("WARNING", logger="tensorflow"):
        for size in range(1, 7):
            method = ni.LevenbergMarquardt(start=np.zeros(size))
            ni.invert(tf.tanh, np.zeros((1, size)) + 0.1, method, input_shape=(size,))
    assert not caplog.records


def test_a_target_without_slopes_does_not_stop_the_others():
    def hidden(batch):  # a ReLU that the search cannot look behind
        return tf.nn.relu(3 * batch - [1.0, 0.0])

    def kinked(batch):  # of infinite slope at 0, where the second search begins
        return tf.sqrt(tf.abs(batch))

    for function, targets, starts in [
        (hidden, [[1.0, 1.5], [0.0, 1.5]], [[0.5, 0.1], [0.4, 0.0]]),
        (kinked, [[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.0, 0.0]]),
    ]:
        method = ni.LevenbergMarquardt(start=np.array(starts))
        result = ni.invert(function, targets, method, bounds=None, input_shape=(2,))
        assert result.converged[0]
        assert np.isfinite(result.inputs).all()


def test_damping_is_never_lost_to_underflow():
    least = np.finfo("float32").tiny
    level = tf.constant([[0.0], [least / 8], [np.inf], [np.nan], [least], [2.0]])
    np.testing.assert_array_equal(solvable(level)[:, 0], [1, 1, 1, 1, least, 2])
