"""The judge: what invert refuses, and that it measures what it returns."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import netinvert as ni
from netinvert.inversion import Inversion

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(3, 4)).astype("float32")


def linear(batch):
    """Four numbers from three: every reachable target has exactly one input."""
    return tf.matmul(batch, MATRIX)


class Proposer:
    """A method that proposes whatever it is told to."""

    def __init__(self, proposal):
        self.proposal = proposal

    def fit(self, forward, inputs):
        return self

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        proposal = np.asarray(self.proposal, "float32")
        return np.broadcast_to(proposal, (len(targets), *proposal.shape)), {}


def propose(proposal, **settings):
    settings = {"bounds": (0.0, 1.0), "input_shape": (3,)} | settings
    return ni.invert(linear, np.zeros((2, 4)), Proposer(proposal), **settings)


def test_a_proposal_outside_the_bounds_is_judged_where_it_is_put_back():
    result = propose([2.0, -1.0, 0.5])
    np.testing.assert_array_equal(result.inputs, [[1.0, 0.0, 0.5]] * 2)
    outputs = linear(result.inputs).numpy()
    np.testing.assert_array_equal(result.outputs, outputs)
    np.testing.assert_allclose(result.residual, np.mean(outputs**2, axis=1), 1e-6)


def test_bounds_can_differ_from_value_to_value():
    result = propose([5.0, 5.0, 5.0], bounds=([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(result.inputs[0], [1.0, 2.0, 3.0])


def test_converged_means_an_output_error_within_the_tolerance():
    truth = np.array([0.2, 0.4, 0.6], "float32")
    target = linear(truth[np.newaxis]).numpy()
    targets = np.concatenate([target, target + 1])
    result = ni.invert(linear, targets, Proposer(truth), input_shape=(3,))
    np.testing.assert_array_equal(result.converged, [True, False])
    assert not ni.invert(
        linear, target + 0.05, Proposer(truth), input_shape=(3,)
    ).converged[0]
    assert ni.invert(
        linear, target + 0.05, Proposer(truth), input_shape=(3,), tolerance=0.01
    ).converged[0]


def test_a_single_target_is_a_batch_of_one():
    result = ni.invert(linear, [0, 0, 0, 0], Proposer([0.0, 0, 0]), input_shape=(3,))
    assert result.inputs.shape == (1, 3)


@pytest.mark.parametrize("numbers", ["float64", "int64", "uint8", list])
def test_targets_of_any_numeric_type_give_the_same_answer(numbers):
    targets = np.array([[1, 2, 3, 4], [0, 1, 0, 1]])
    given = targets.tolist() if numbers is list else targets.astype(numbers)
    result = ni.invert(linear, given, Proposer([0.0, 0, 0]), input_shape=(3,))
    assert result.targets.dtype == "float32"
    np.testing.assert_array_equal(result.targets, targets)


def test_the_report_is_one_readable_line():
    text = repr(propose([0.0, 0.0, 0.0]))
    assert "2 of 2 converged" in text
    assert "\n" not in text


def test_the_report_stays_one_line_where_a_setting_is_an_array():
    method = ni.GradientInversion(start=np.zeros((40, 3)), steps=1)
    text = repr(ni.invert(linear, np.zeros((40, 4)), method, input_shape=(3,)))
    assert "\n" not in text and len(text) < 300


@pytest.mark.parametrize("targets", [np.zeros((5, 4)), np.zeros((1, 4)), np.zeros(4)])
@pytest.mark.parametrize("nested", [False, True])
def test_an_array_to_start_from_shows_the_shape_of_an_input(targets, nested):
    for shape in [(3,), (np.atleast_2d(targets).shape[0], 3)]:
        method = ni.GradientInversion(start=np.full(shape, 0.5), steps=2)
        if nested:
            method = ni.LevenbergMarquardt(start=method, steps=2)
        result = ni.invert(linear, targets, method)
        assert result.inputs.shape == (np.atleast_2d(targets).shape[0], 3)


def test_a_start_that_does_not_fit_shows_no_shape():
    method = ni.GradientInversion(start=np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"start array must be .*\(2, 3\)"):
        ni.invert(linear, np.zeros((2, 4)), method, input_shape=(3,))
    with pytest.raises(ValueError, match="cannot tell the shape"):
        ni.invert(linear, np.zeros((2, 4)), method)


def test_a_result_can_be_pickled_and_copied():
    method = ni.GradientInversion(start=np.full(3, 0.5), steps=4)
    result = ni.invert(linear, np.zeros((2, 4)), method)
    for twin in (
        pickle.loads(pickle.dumps(result)),
        copy.copy(result),
        copy.deepcopy(result),
    ):
        assert repr(twin) == repr(result)
        np.testing.assert_array_equal(twin.inputs, result.inputs)
        np.testing.assert_array_equal(
            twin.history["objective"], result.history["objective"]
        )


def test_a_file_name_is_no_network():
    with pytest.raises(ValueError, match="Keras model or a function.*got str"):
        ni.invert("my_model.h5", [[0.8, 0.2]], ni.GradientInversion())


def test_many_targets_are_searched_in_chunks_and_none_is_lost():
    truths = RNG.uniform(0.2, 0.8, (7, 3)).astype("float32")
    method = ni.GradientInversion(steps=300)
    whole = ni.invert(linear, linear(truths), method, input_shape=(3,))
    parts = ni.invert(linear, linear(truths), method, input_shape=(3,), batch_size=3)
    np.testing.assert_allclose(parts.inputs, whole.inputs, atol=1e-4)
    assert parts.history["objective"].shape == whole.history["objective"].shape
    assert len(parts.residual) == 7


BAD_CALLS = {
    "wrong target width": ({"targets": np.zeros((2, 5))}, r"\(4,\).*\(2, 5\)"),
    "ragged target": ({"targets": [[1.0, 2.0], [3.0]]}, "rows of equal length"),
    "complex target": ({"targets": np.full((1, 4), 1j)}, "complex"),
    "text target": ({"targets": "seven"}, "array of numbers"),
    "numbers as text": ({"targets": [["1", "2", "3", "4"]]}, "array of numbers"),
    "masked target": (
        {"targets": np.ma.masked_less([[1.0, 2.0, 3.0, 4.0]], 2)},
        "masked; fill",
    ),
    "numbers as bytes": ({"targets": np.array([[b"1"] * 4], object)}, "object"),
    "date target": ({"targets": np.full((1, 4), "2020", "M8[D]")}, "datetime64"),
    "endless target": ({"targets": [[10**400, 1, 1, 1]]}, "array of numbers"),
    "nan target": ({"targets": [[0, 0, np.nan, 0]]}, "NaN"),
    "infinite target": ({"targets": [[0, 0, np.inf, 0]]}, "infinity"),
    "huge target": ({"targets": [[0, 0, 1e300, 0]]}, "too large for float32"),
    "no target": ({"targets": np.zeros((0, 4))}, "nothing to invert"),
    "bounds the wrong way round": ({"bounds": (1.0, 0.0)}, "below"),
    "bounds in a string": ({"bounds": "01"}, "pair"),
    "bounds as text": ({"bounds": ("0", "1")}, "pair"),
    "bounds in a set": ({"bounds": {0.0, 1.0}}, "None or a pair"),
    "bounds too far apart": ({"bounds": (-3e38, 3e38)}, "their distance"),
    "bounds too close": ({"bounds": (1.0, 1 + 1e-12)}, "too close"),
    "three bounds": ({"bounds": (0.0, 0.5, 1.0)}, "pair"),
    "infinite bound": ({"bounds": (0.0, np.inf)}, "finite"),
    "bound beyond float32": ({"bounds": (0.0, 1e39)}, "at most 3.4e"),
    "bounds of another shape": ({"bounds": ([0.0, 0.0], 1.0)}, "pair"),
    "negative seed": ({"seed": -1}, "seed must be at least 0"),
    "half a batch": ({"batch_size": 0.5}, "batch_size must be a whole number"),
    "empty batches": ({"batch_size": 0}, "batch_size must be at least 1"),
    "no tolerance": ({"tolerance": 0.0}, "tolerance"),
    "tolerance None": ({"tolerance": None}, "tolerance must be a positive number"),
    "tolerance True": ({"tolerance": True}, "tolerance must be a positive number"),
    "endless tolerance": ({"tolerance": 10**400}, "tolerance must be a positive"),
    "a number for a shape": ({"input_shape": 3}, "must be a tuple"),
    "a negative size": ({"input_shape": (-3,)}, "each size in input_shape"),
    "unknown input shape": ({"input_shape": None}, "input_shape="),
    "unfit input shape": ({"input_shape": (5,)}, "cannot take a batch of inputs"),
    "a class for a method": ({"method": ni.GradientInversion}, "add parentheses"),
    "no method": ({"method": "gradient"}, "fit and solve"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_request_that_does_not_fit_is_refused_with_advice(case):
    wrong, message = BAD_CALLS[case]
    arguments = {
        "targets": np.zeros((2, 4)),
        "method": Proposer([0.0, 0.0, 0.0]),
        "input_shape": (3,),
    } | wrong
    with pytest.raises(ValueError, match=message):
        ni.invert(linear, **arguments)


@pytest.mark.parametrize(
    "answer",
    [None, np.zeros((2, 3)), (np.full((2, 3), 1j), {}), (np.full((2, 3), "0"), {})],
)
def test_a_method_that_proposes_no_inputs_is_named(answer):
    method = Proposer(None)
    method.solve = lambda *task, **settings: answer
    with pytest.raises(RuntimeError, match="Proposer"):
        ni.invert(linear, np.zeros((2, 4)), method, input_shape=(3,))


@pytest.mark.parametrize("kind", ["int64", "bool", "float16", "float32", "float64"])
def test_a_proposal_of_any_number_type_is_put_inside_the_bounds(kind):
    method = Proposer(None)
    proposal = np.array([[0, 1, 0.7]] * 2).astype(kind)
    method.solve = lambda *task, **settings: (proposal, {})
    bounds = (0.2, np.array([0.7, 0.7, 0.3]))
    result = ni.invert(
        lambda batch: linear(tf.cast(batch, "float32")),
        np.zeros((2, 4)),
        method,
        bounds=bounds,
        input_shape=(3,),
    )
    low, high = np.broadcast_arrays(*bounds)
    assert result.inputs.dtype in ("float32", "float64")
    assert (low <= result.inputs).all() and (result.inputs <= high).all()


def test_outputs_without_numbers_are_refused():
    def forward(batch):
        return batch[:, :0]

    with pytest.raises(ValueError, match=r"it gave shape \(1, 0\)"):
        ni.invert(forward, np.zeros((1, 0)), Proposer([0.0] * 3), input_shape=(3,))


def test_numbers_of_every_kind_are_taken():
    method = ni.GradientInversion(steps=2, learning_rate=np.float32(0.1))
    targets = [[0, True, np.float16(0), np.int8(0)]]
    settings = {"tolerance": np.float32(1e-3), "bounds": (np.array(0), tf.constant(1))}
    result = ni.invert(linear, targets, method, input_shape=[3], **settings)
    assert result.inputs.shape == (1, 3)


def test_a_function_written_in_numpy_cannot_be_searched():
    def forward(batch):
        return tf.constant(np.asarray(batch) @ MATRIX)

    with pytest.raises(ValueError, match="TensorFlow or Keras operations"):
        ni.invert(forward, np.zeros((1, 4)), ni.GradientInversion(), input_shape=(3,))


def test_a_function_without_a_slope_cannot_be_searched():
    def forward(batch):
        return tf.cast(tf.argmax(batch, axis=1, output_type="int32"), "float32")

    with pytest.raises(ValueError, match="no gradient reaches the inputs"):
        ni.invert(forward, [1.0], ni.GradientInversion(), input_shape=(3,))


def test_class_numbers_are_not_outputs_to_invert():
    with pytest.raises(ValueError, match="logits instead of a class.*int64"):
        ni.invert(
            lambda batch: tf.argmax(batch, axis=1),
            [1],
            ni.GradientInversion(),
            input_shape=(3,),
        )


def test_outputs_of_too_few_digits_are_refused():
    with pytest.raises(ValueError, match='bfloat16.*dtype="float32"'):
        ni.invert(
            lambda batch: tf.cast(linear(batch), "bfloat16"),
            np.zeros((1, 4)),
            ni.GradientInversion(),
            input_shape=(3,),
        )


def test_a_network_with_two_outputs_is_refused():
    inputs = keras.Input((3,))
    both = [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)]
    with pytest.raises(ValueError, match="output"):
        ni.invert(keras.Model(inputs, both), np.zeros((1, 2)), ni.GradientInversion())


def test_a_network_with_two_inputs_is_refused():
    pair = [keras.Input((3,)), keras.Input((3,))]
    model = keras.Model(pair, keras.layers.Dense(2)(keras.layers.Add()(pair)))
    with pytest.raises(ValueError, match="input"):
        ni.invert(model, np.zeros((1, 2)), ni.GradientInversion())


def test_a_method_that_returns_the_wrong_shape_is_named():
    with pytest.raises(RuntimeError, match="Proposer.*must propose inputs of shape"):
        propose([0.0, 0.0])


def test_a_method_that_returns_nan_is_not_believed():
    with pytest.raises(RuntimeError, match="NaN"):
        propose([0.0, np.nan, 0.0])


def test_an_input_where_the_network_overflows_is_reported():
    with pytest.warns(RuntimeWarning, match="diverged"):
        result = ni.invert(
            lambda batch: tf.exp(1e3 * batch),
            [[1.0]],
            Proposer([1.0]),
            input_shape=(1,),
        )
    assert not result.converged[0]


def test_the_result_cannot_be_changed_afterwards():
    result = propose([0.0, 0.0, 0.0])
    assert isinstance(result, Inversion)
    with pytest.raises(AttributeError):
        result.residual = np.zeros(2)
