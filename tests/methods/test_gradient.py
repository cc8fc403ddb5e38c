"""Gradient search: it is the Adam it claims to be, and finds what it promises."""

import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import netinvert as ni
from netinvert.methods.gradient import HALVES_PAY_FROM
from netinvert.methods.parametrization import Box, Free
from netinvert.objectives import cross_entropy, squared_error, total_variation
from tools.environment import ROOT


@pytest.fixture(scope="module")
def dense():
    """A small network from vectors to vectors, and eight targets for it."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(12, "tanh"), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((6,)), *layers])


@pytest.fixture(scope="module")
def convolutional():
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(3, 3, strides=2, activation="tanh"),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


def targets_of(forward, count=8):
    """Outputs that the network has for some input, (count, 3)."""
    random = np.random.default_rng(1)
    inputs = random.uniform(0.2, 0.8, (count, *forward.input_shape[1:]))
    return forward(inputs.astype("float32")).numpy()


def keras_search(forward, targets, code, draw, steps, rate):
    """The same search with Keras's own Adam and cosine decay."""
    code = tf.Variable(code)
    decay = keras.optimizers.schedules.CosineDecay(rate, steps)
    optimizer = keras.optimizers.Adam(decay)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            error = tf.reduce_mean((forward(draw(code)) - targets) ** 2, axis=1)
            total = tf.reduce_sum(error)
        optimizer.apply_gradients([(tape.gradient(total, code), code)])
    return draw(code).numpy()


@pytest.mark.parametrize("network", ["dense", "convolutional"])
@pytest.mark.parametrize("bounds", [None, (-1.0, 2.0)])
def test_the_search_is_keras_s_adam_with_cosine_decay(network, bounds, request):
    forward = request.getfixturevalue(network)
    targets = targets_of(forward)
    start = np.full((8, *forward.input_shape[1:]), 0.3, "float32")
    method = ni.GradientInversion(
        squared_error, start=start, steps=40, learning_rate=0.1
    )
    found = ni.invert(forward, targets, method, bounds=bounds).inputs
    code, draw = start, tf.identity
    if bounds is not None:
        share = (start + 1) / 3
        code = np.log(share / (1 - share))

        def draw(code):
            return 3 * tf.sigmoid(code) - 1

    expected = keras_search(forward, targets, code, draw, steps=40, rate=0.1)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.abs(found - start).max() > 0.1


@pytest.mark.parametrize("network", ["dense", "convolutional"])
def test_xla_changes_nothing_but_the_speed(network, request):
    forward = request.getfixturevalue(network)
    targets = targets_of(forward)
    answers = [
        ni.invert(forward, targets, ni.GradientInversion(steps=50, jit_compile=choice))
        for choice in (True, False, "auto")
    ]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer.inputs, answers[0].inputs, atol=2e-4)
        np.testing.assert_allclose(
            answer.history["objective"], answers[0].history["objective"], rtol=0.01
        )


def test_halves_searched_side_by_side_join_to_one_answer(dense):
    targets = targets_of(dense, count=HALVES_PAY_FROM + 1)
    start = np.random.default_rng(2).uniform(size=(len(targets), 6)).astype("float32")
    whole, halved = (
        ni.GradientInversion(start=start, steps=40, jit_compile=xla).solve(
            dense, targets, bounds=(0.0, 1.0), seed=0, input_shape=(6,)
        )
        for xla in (False, True)
    )
    np.testing.assert_allclose(halved[0], whole[0], atol=1e-4)
    for key in ("step", "objective", "inputs"):
        np.testing.assert_allclose(halved[1][key], whole[1][key], atol=1e-4)


def test_a_code_draws_back_the_input_it_encodes():
    inputs = np.random.default_rng(0).uniform(-1.9, 4.9, (5, 3)).astype("float32")
    np.testing.assert_array_equal(Free().draw(Free().encode(inputs)), inputs)
    for box in Box(-2.0, 5.0), Box((-2.0, -3.0, -4.0), (5.0, 6.0, 7.0)):
        np.testing.assert_allclose(box.draw(box.encode(inputs)), inputs, atol=1e-5)


def test_no_code_draws_an_input_outside_the_box():
    box = Box((-2.0, 0.0), (5.0, 1.0))
    codes = tf.constant([[-1e30, 1e30], [1e30, -1e30], [-20.0, 20.0]])
    drawn = box.draw(codes).numpy()
    assert (drawn >= [-2, 0]).all() and (drawn <= [5, 1]).all()
    ends = box.encode(np.array([[-2.0, 1.0]], "float32"))
    assert np.isfinite(ends).all()


def first_inputs(forward, method, **settings):
    """Where a search of eight targets began, (8, ...)."""
    return ni.invert(forward, targets_of(forward), method, **settings).history[
        "inputs"
    ][0]


def test_a_search_starts_from_the_mean_it_was_fitted_to(dense):
    inputs = np.random.default_rng(0).uniform(size=(50, 6)).astype("float32")
    method = ni.GradientInversion(steps=1).fit(dense, inputs)
    expected = np.tile(inputs.mean(axis=0), (8, 1))
    np.testing.assert_allclose(first_inputs(dense, method), expected, atol=1e-5)


def test_without_a_mean_a_search_starts_in_the_middle(dense):
    method = ni.GradientInversion(steps=1)
    in_box = first_inputs(dense, method, bounds=(1.0, 4.0))
    np.testing.assert_allclose(in_box, 2.5, atol=1e-5)
    np.testing.assert_array_equal(first_inputs(dense, method, bounds=None), 0)


@pytest.mark.parametrize("bounds", [None, (2.0, 3.0)])
def test_noise_depends_on_the_seed_and_not_on_the_place_in_the_batch(dense, bounds):
    method = ni.GradientInversion(start="noise", steps=1)
    noise, same, other = (
        first_inputs(dense, method, bounds=bounds, seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(noise, same)
    np.testing.assert_array_equal(noise, np.tile(noise[:1], (8, 1)))
    assert np.abs(noise - other).max() > 0.1
    assert np.std(noise[0]) > 0.1


def test_a_start_may_be_one_input_or_one_for_each_target(dense):
    one = np.linspace(0.2, 0.7, 6)
    each = np.random.default_rng(0).uniform(0.1, 0.9, (8, 6))
    for start in one, each:
        begun = first_inputs(dense, ni.GradientInversion(start=start, steps=1))
        np.testing.assert_allclose(begun, np.broadcast_to(start, (8, 6)), atol=1e-5)


def test_one_method_can_polish_the_answer_of_another(dense):
    targets = targets_of(dense)
    rough = ni.GradientInversion(start="noise", steps=20)
    polish = ni.GradientInversion(start=rough, steps=200)
    before, after = (ni.invert(dense, targets, method) for method in (rough, polish))
    np.testing.assert_allclose(
        after.history["inputs"][0], before.inputs.clip(0.01, 0.99), atol=1e-4
    )
    assert np.median(after.residual) < 0.1 * np.median(before.residual)


def test_a_fitted_start_knows_the_shape_of_an_input(dense):
    targets = targets_of(dense)
    rough = ni.GradientInversion(steps=5).fit(dense, np.full((2, 6), 0.5))
    result = ni.invert(
        lambda inputs: dense(inputs), targets, ni.GradientInversion(start=rough)
    )
    assert result.inputs.shape == (len(targets), 6)


def test_a_start_that_does_not_fit_is_refused(dense):
    targets = targets_of(dense)
    for start, complaint in {
        "zeros": 'must be "mean", "noise", an array or a method',
        ni.GradientInversion: "GradientInversion.*add parentheses",
    }.items():
        with pytest.raises(ValueError, match=complaint):
            ni.GradientInversion(start=start)
    for start, complaint in [
        (np.zeros((3, 6)), r"\(6,\) or one for each target, \(8, 6\); got \(3, 6\)"),
        (np.full(6, np.nan), "NaN"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            ni.invert(dense, targets, ni.GradientInversion(start=start))


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"steps": -1}, "steps must be at least 1, got -1"),
        ({"steps": 2.5}, "whole number"),
        ({"learning_rate": 0}, "positive number, got 0"),
        ({"learning_rate": float("nan")}, "positive number, got nan"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"jit_compile": "yes"}, 'True, False or "auto"'),
        ({"objective": "mse"}, "built from netinvert.objectives"),
        ({"objective": total_variation}, "never looks at the target"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        ni.GradientInversion(**settings)


def test_total_variation_of_a_vector_input_is_refused(dense):
    method = ni.GradientInversion(squared_error + total_variation)
    with pytest.raises(ValueError, match="leave it out for vector inputs"):
        ni.invert(dense, targets_of(dense), method)


def test_the_default_prior_of_images_one_pixel_wide_is_refused():
    method = ni.GradientInversion(steps=2)
    with pytest.raises(ValueError, match="2 x 2 pixels, got .*8, 1, 1"):
        ni.invert(lambda x: x[:, :3, 0, 0], [[1.0] * 3], method, input_shape=(8, 1, 1))


def test_a_prior_that_would_count_for_nothing_is_refused(dense):
    @ni.objectives.prior
    def broken(inputs):
        return tf.reduce_mean(inputs[:, 6:], axis=1)  # of no values at all: NaN

    method = ni.GradientInversion(squared_error + 0.1 * broken, steps=2)
    with pytest.raises(ValueError, match=r"count for nothing in .* 0.1 \* broken"):
        ni.invert(dense, targets_of(dense), method)


def waves(inputs):
    """A function with many local optima: (N, 2) -> (N, 1)."""
    return tf.reduce_sum(tf.sin(9 * inputs) + inputs, axis=1, keepdims=True)


def test_of_several_starts_the_one_with_the_smallest_mismatch_is_kept():
    targets = np.linspace(-1.5, 3.5, 12)[:, None]

    def answer(restarts, seed):
        method = ni.GradientInversion(
            squared_error, start="noise", restarts=restarts, steps=40
        )
        return ni.invert(waves, targets, method, seed=seed, input_shape=(2,))

    singles = [answer(1, seed) for seed in (5, 6, 7)]
    together = answer(3, 5)
    best = np.argmin([single.residual for single in singles], axis=0)
    assert len(set(best)) > 1, "the test needs targets that differ in their best start"
    for row, start in enumerate(best):
        expected = singles[start].inputs[row]
        np.testing.assert_allclose(together.inputs[row], expected, atol=1e-4)
    np.testing.assert_allclose(
        together.history["inputs"][-1], together.inputs, atol=1e-5
    )
    np.testing.assert_allclose(
        together.history["objective"][-1], together.residual, atol=1e-5
    )


def test_a_start_without_a_finite_output_is_never_the_best():
    def broken_above_one(inputs):
        return tf.where(inputs > 1, np.nan, inputs)

    broken = np.full((1, 1), 5.0)
    method = ni.GradientInversion(squared_error, start=broken, restarts=2, steps=200)
    result = ni.invert(broken_above_one, [[0.5]], method, bounds=None, input_shape=(1,))
    np.testing.assert_allclose(result.inputs, 0.5, atol=0.01)


def test_history_records_the_search_from_its_start_to_its_end(convolutional):
    targets = targets_of(convolutional, 20)
    method = ni.GradientInversion(steps=50)
    result = ni.invert(convolutional, targets, method)
    steps, pictures = result.history["step"], result.history["inputs"]
    assert steps[0] == 0 and steps[-1] == 50 and (np.diff(steps) > 0).all()
    assert result.history["objective"].shape == (len(steps), 20)
    assert pictures.shape == (len(steps), 16, 8, 8, 1)
    np.testing.assert_allclose(pictures[-1], result.inputs[:16], atol=1e-6)
    assert (result.history["objective"][-1] < result.history["objective"][0]).all()
    assert method.steps == 50 and not hasattr(method, "history")


def test_a_forward_function_may_branch_on_its_values():
    def forward(inputs):
        return 2 * inputs if tf.reduce_sum(inputs) > 0 else -inputs

    method = ni.GradientInversion(steps=100)
    result = ni.invert(forward, np.full((3, 2), 0.8), method, input_shape=(2,))
    np.testing.assert_allclose(result.inputs, 0.4, atol=1e-2)


def test_a_search_of_one_step_has_a_history_too(dense):
    result = ni.invert(dense, targets_of(dense), ni.GradientInversion(steps=1))
    np.testing.assert_array_equal(result.history["step"], [0, 1])


def test_chunks_join_to_the_answer_of_the_whole_batch(dense):
    targets = targets_of(dense)
    method = ni.GradientInversion(steps=60)
    whole = ni.invert(dense, targets, method)
    chunks = ni.invert(dense, targets, method, batch_size=3, progress=False)
    np.testing.assert_allclose(chunks.inputs, whole.inputs, atol=1e-4)
    for name in ("step", "objective"):
        np.testing.assert_allclose(
            chunks.history[name], whole.history[name], rtol=0.01, atol=1e-4
        )


def test_a_search_that_diverges_says_so_and_returns_no_nan():
    linear = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    method = ni.GradientInversion(squared_error, learning_rate=1e30, steps=20)
    with pytest.warns(RuntimeWarning, match="4 of 4 searches diverged"):
        result = ni.invert(linear, np.ones((4, 2)), method, bounds=None)
    assert np.isfinite(result.inputs).all()
    assert not result.converged.any()


def test_a_linear_network_is_solved_to_the_last_digits():
    linear = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    targets = np.random.default_rng(0).normal(size=(9, 2))
    method = ni.GradientInversion(squared_error, steps=1000)
    result = ni.invert(linear, targets, method, bounds=None)
    assert result.residual.max() < 1e-10
    assert result.converged.all()


@pytest.fixture(scope="module")
def digits():
    (x_train, _), (x_test, y_test) = ni.load_mnist()
    return x_train, x_test[:256], y_test[:256]


def test_without_a_prior_every_output_is_matched_within_the_bounds(digits):
    x_train, x_test, _ = digits
    forward = ni.tap(ni.pretrained("mlp"), "logits")
    targets = forward(x_test).numpy()
    method = ni.GradientInversion(squared_error, steps=1000, learning_rate=0.05)
    result = ni.invert(forward, targets, method.fit(forward, x_train))
    assert (result.outputs.argmax(axis=1) == targets.argmax(axis=1)).all()
    assert result.inputs.min() >= 0 and result.inputs.max() <= 1
    assert np.median(result.residual) < 1e-6


@pytest.mark.parametrize(
    "layer, decibels, similarity, accuracy",
    [
        ("logits", 12.9, 0.28, 0.75),
        ("hidden_2", 15.0, 0.46, 0.92),
        ("hidden_1", 18.2, 0.63, 0.97),
    ],
)
def test_the_default_search_reconstructs_digits(
    layer, decibels, similarity, accuracy, digits
):
    x_train, x_test, y_test = digits
    forward = ni.tap(ni.pretrained("mlp"), layer)
    method = ni.GradientInversion().fit(forward, x_train)
    found = ni.invert(forward, forward(x_test), method).inputs
    assert ni.metrics.psnr(x_test, found).mean() >= decibels
    assert ni.metrics.ssim(x_test, found).mean() >= similarity
    read = ni.metrics.accuracy(ni.pretrained("evaluator"), found, y_test)
    assert read.mean() >= accuracy


def test_targets_of_cross_entropy_are_shares_of_classes(digits):
    x_train, x_test, _ = digits
    forward = ni.tap(ni.pretrained("mlp"), "logits")
    method = ni.GradientInversion(cross_entropy, steps=2).fit(forward, x_train)
    good = np.eye(10)[:2]
    for one in (forward(x_test[:1])[0], np.full(10, 0.2), good[0] - good[1] / 10):
        with pytest.raises(ValueError, match="1 of 3 .* squared_error"):
            ni.invert(forward, np.vstack([good, one]), method)
        with pytest.raises(ValueError, match="1 of 3 .* squared_error"):
            later = ni.GradientInversion(steps=2, start=method)
            ni.invert(forward, np.vstack([good, one]), later)
    rounded = good - 1e-7 * (1 - good)
    assert len(ni.invert(forward, rounded, method).inputs) == 2
    without = ni.GradientInversion(squared_error + 0 * cross_entropy, steps=2)
    ni.invert(forward, forward(x_test[:1]), without.fit(forward, x_train))


def test_cross_entropy_needs_one_class_per_target():
    method = ni.GradientInversion(cross_entropy, steps=2)
    with pytest.raises(ValueError, match=r"\(N, classes\).* got \(2, 3, 4\)"):
        ni.invert(lambda x: x, np.zeros((2, 3, 4)), method, input_shape=(3, 4))


def test_an_image_of_every_class_can_be_drawn(digits):
    x_train, _, _ = digits
    forward = ni.tap(ni.pretrained("mlp"), "logits")
    method = ni.GradientInversion(cross_entropy + 0.3 * total_variation, steps=256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = ni.invert(forward, np.eye(10), method.fit(forward, x_train))
    assert result.converged.all()
    np.testing.assert_array_equal(result.outputs.argmax(axis=1), np.arange(10))


MEMORY = """
import resource
import numpy as np
import netinvert as ni

(x_train, _), _ = ni.load_mnist()
forward = ni.tap(ni.pretrained("mlp"), "logits")
method = ni.GradientInversion(steps=10).fit(forward, x_train)

def peak(count):
    targets = np.random.default_rng(0).normal(size=(count, 10))
    ni.invert(forward, targets, method, batch_size=500, progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

print(peak(1_000), peak(10_000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux")
def test_memory_stays_flat_from_a_thousand_to_ten_thousand_targets():
    command = [sys.executable, "-c", MEMORY]
    report = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    )
    small, large = map(int, report.stdout.split())
    answer = 9_000 * 784 * 4 / 1024  # kilobytes of the additional pictures themselves
    assert large - small < 4 * answer


SEARCHES = {
    "gradient": lambda: ni.GradientInversion(squared_error, steps=300),
    "second order": lambda: ni.LevenbergMarquardt(),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_function_whose_numbers_have_changed_is_inverted_as_it_is_now(name):
    class Network:
        __hash__ = None  # a compiled search must be found without

        weights = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")

        def __call__(self, batch):
            return tf.matmul(batch, self.weights)

    network, targets = Network(), [[0.1, 0.2, 0.3]]
    for factor in (1.0, -2.0, 3.0):
        network.weights = factor * network.weights[:, ::-1]
        settings = {"bounds": None, "input_shape": (4,)}
        result = ni.invert(network, targets, SEARCHES[name](), **settings)
        assert result.residual.max() < 1e-6


def test_a_prior_whose_weight_has_changed_counts_as_it_is_now(dense):
    weight = np.zeros(1, "float32")

    @ni.objectives.prior
    def size(inputs):
        return weight * tf.reduce_sum(tf.square(inputs), axis=1)

    method = ni.GradientInversion(squared_error + size, steps=100)
    sizes = []
    for weight[0] in (0.0, 100.0, 0.0):
        found = ni.invert(dense, targets_of(dense), method).inputs
        sizes.append(np.square(found).sum())
    assert sizes[0] == sizes[2] > 2 * sizes[1]
