"""What a search minimises: what each term measures, and how terms combine."""

import copy
import pickle

import numpy as np
import pytest
import tensorflow as tf

from netinvert.objectives import (
    Objective,
    alpha_norm,
    cross_entropy,
    mismatch,
    prior,
    relative_error,
    squared_error,
    total_variation,
)

TERMS = [squared_error, cross_entropy, relative_error, total_variation, alpha_norm]


@pytest.fixture
def batch():
    """Inputs, outputs and targets of five examples; targets are probabilities."""
    random = np.random.default_rng(0)
    targets = random.dirichlet(np.ones(3), size=5)
    arrays = random.random((5, 8, 6, 1)), random.normal(size=(5, 3)), targets
    return tuple(tf.constant(array, "float32") for array in arrays)


def test_squared_error_is_the_mean_over_an_example_s_outputs():
    outputs, targets = tf.constant([[1.0, 3.0]]), tf.constant([[0.0, 0.0]])
    np.testing.assert_allclose(squared_error(None, outputs, targets), [5.0])
    maps = tf.ones((2, 4, 4, 3))
    np.testing.assert_allclose(squared_error(None, 3 * maps, maps), [4.0, 4.0])


def test_relative_error_does_not_change_when_a_layer_s_values_are_rescaled(batch):
    inputs, outputs, targets = batch
    plain = relative_error(inputs, outputs, targets)
    scaled = relative_error(inputs, 1000 * outputs, 1000 * targets)
    np.testing.assert_allclose(plain, scaled, rtol=1e-5)
    zero = tf.zeros_like(targets)
    assert np.isfinite(relative_error(inputs, outputs, zero)).all()


def test_cross_entropy_is_minus_the_logarithm_of_the_wanted_probability():
    logits = tf.math.log([[0.25, 0.5, 0.25]])
    wanted = tf.constant([[0.0, 1.0, 0.0]])
    np.testing.assert_allclose(cross_entropy(None, logits, wanted), [np.log(2)])


def variation(images):
    return total_variation(tf.constant(images), None, None).numpy()


def test_total_variation_counts_the_edges_of_a_square():
    image = np.zeros((1, 6, 6, 1), "float32")
    image[:, 2:4, 2:4] = 1
    # Of 25 places, six see one edge and one, at the lower right corner, sees two.
    places = np.zeros((5, 5))
    places[1, 2:4] = places[2:4, 1] = 1
    places[2, 3] = places[3, 2] = 1
    places[3, 3] = np.sqrt(2)
    edges = np.sqrt(places**2 + 1e-4).mean()
    np.testing.assert_allclose(variation(image), [edges], rtol=1e-5)


def test_total_variation_prefers_a_digit_s_strokes_to_the_same_pixels_shuffled():
    image = np.zeros((1, 28, 28, 1), "float32")
    image[:, 6:22, 12:16] = 1
    shuffled = np.random.default_rng(0).permuted(image.reshape(1, -1), axis=1)
    grainy = variation(shuffled.reshape(image.shape))
    assert (grainy > 3 * variation(image)).all()


def test_the_gradient_of_total_variation_is_finite_where_nothing_changes():
    image = tf.constant(np.full((1, 8, 8, 1), 0.5, "float32"))
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = total_variation(image, None, None)
    assert np.isfinite(tape.gradient(value, image)).all()


def test_total_variation_of_vectors_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"\(N, height, width, .*\(3, 4\); leave it"):
        total_variation(tf.ones((3, 4)), None, None)


def test_alpha_norm_punishes_extremes_and_spares_small_values():
    small, large = (alpha_norm(tf.fill((1, 4), v), None, None) for v in (0.5, -2.0))
    np.testing.assert_allclose(small, [0.5**6])
    np.testing.assert_allclose(large, [64.0])


@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_a_term_is_one_number_per_example_whatever_its_neighbours(term, batch):
    whole = term(*batch)
    assert whole.shape == (5,)
    alone = term(*(array[2:3] for array in batch))
    np.testing.assert_allclose(alone[0], whole[2], rtol=1e-5)


@pytest.mark.parametrize("term", [squared_error, relative_error, cross_entropy])
def test_the_right_output_is_where_a_mismatch_is_smallest(term, batch):
    inputs, outputs, targets = batch
    right = tf.math.log(targets) if term is cross_entropy else targets
    best = term(inputs, right, targets)
    assert (term(inputs, outputs, targets).numpy() > best.numpy()).all()


def test_terms_add_and_scale(batch):
    both = squared_error + 0.5 * total_variation
    expected = squared_error(*batch) + 0.5 * total_variation(*batch)
    np.testing.assert_allclose(both(*batch), expected, rtol=1e-6)
    np.testing.assert_allclose((2 * both)(*batch), 2 * expected, rtol=1e-6)
    np.testing.assert_allclose((both * 2)(*batch), 2 * expected, rtol=1e-6)
    assert repr(4 * both) == "4 * squared_error + 2 * total_variation"


def test_combining_terms_leaves_them_as_they_were(batch):
    before = squared_error(*batch).numpy()
    term = squared_error
    term += total_variation
    3 * squared_error
    assert term is not squared_error
    assert len(squared_error.terms) == 1
    np.testing.assert_array_equal(squared_error(*batch), before)
    with pytest.raises(AttributeError):
        squared_error.terms = ()


def test_the_mismatch_of_an_objective_leaves_out_the_priors(batch):
    objective = 2 * squared_error + alpha_norm + 3 * total_variation
    np.testing.assert_allclose(objective.mismatch(*batch), 2 * squared_error(*batch))
    assert (alpha_norm + total_variation).mismatch.terms == ()


def test_only_a_cross_entropy_names_a_class():
    assert (total_variation + 2 * cross_entropy).names_class
    assert not (squared_error + total_variation).names_class


@pytest.mark.parametrize("shape", [(1, 28), (28, 1), (1, 1)])
def test_total_variation_needs_neighbors_in_both_directions(shape):
    with pytest.raises(
        ValueError, match=f"2 x 2 pixels, got .3, {shape[0]}, {shape[1]}, 1"
    ):
        total_variation(tf.ones((3, *shape, 1)), None, None)


@prior
def darkness(inputs):
    return tf.reduce_mean(1 - inputs, axis=[1, 2, 3])


def brightness(inputs):
    return tf.reduce_mean(inputs, axis=[1, 2, 3])


def test_objectives_can_be_pickled_and_copied(batch):
    objective = sum(TERMS[1:], 2 * TERMS[0]) + 0.5 * darkness + prior(brightness)
    for again in pickle.loads(pickle.dumps(objective)), copy.deepcopy(objective):
        assert again == objective and repr(again) == repr(objective)
        assert again.names_class
        np.testing.assert_array_equal(again(*batch), objective(*batch))
    assert pickle.loads(pickle.dumps(brightness)) is brightness


@pytest.mark.parametrize("weight", [-1, -0.5, float("nan"), float("inf")])
def test_a_weight_that_would_maximise_is_refused(weight):
    with pytest.raises(ValueError, match=f"always minimised; got {weight}"):
        weight * total_variation


@pytest.mark.parametrize("other", [1, None, "total_variation", lambda x: x])
def test_only_objectives_can_be_added(other):
    with pytest.raises(TypeError, match="unsupported operand"):
        squared_error + other


def test_a_prior_of_your_own_takes_a_few_lines(batch):
    @prior
    def ink(inputs):
        return tf.reduce_mean(inputs, axis=[1, 2, 3])

    objective = squared_error + 0.1 * ink
    assert isinstance(objective, Objective)
    assert repr(objective) == "squared_error + 0.1 * ink"
    expected = squared_error(*batch) + 0.1 * tf.reduce_mean(batch[0], axis=[1, 2, 3])
    np.testing.assert_allclose(objective(*batch), expected, rtol=1e-6)


def test_a_mismatch_of_your_own_sees_outputs_and_targets(batch):
    @mismatch
    def largest_error(outputs, targets):
        return tf.reduce_max(tf.abs(outputs - targets), axis=1)

    expected = np.abs(batch[1] - batch[2]).max(axis=1)
    np.testing.assert_allclose(largest_error(*batch), expected)
    assert largest_error.mismatch == largest_error
