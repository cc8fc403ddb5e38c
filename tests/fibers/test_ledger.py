"""The rank of every layer is that of its Jacobian."""

import keras
import numpy as np
import pytest

from netinvert import fibers
from netinvert.certificates import Layer
from netinvert.forward import tap
from tests.fibers.networks import dense, random_network

layers = keras.layers


@pytest.mark.parametrize("seed", range(3))
def test_the_ledger_agrees_with_automatic_differentiation(seed):
    model = random_network(seed, layers.LeakyReLU(negative_slope=0.25))
    inputs = np.random.default_rng(seed).random((40, 12)).astype("float32")
    book = fibers.ledger(model, inputs, points=5)
    assert book.layers[-1] == "logits"
    for k, name in enumerate(book.layers):
        if "before" in name:
            continue
        ranks = [
            np.linalg.matrix_rank(j, tol=1e-4) for j in jacobians(model, name, inputs)
        ]
        assert book.ranks[k].tolist() == ranks[:5]


def jacobians(model, name, inputs):
    import tensorflow as tf

    variable = tf.Variable(inputs[:5])
    with tf.GradientTape() as tape:
        outputs = tap(model, name)(variable)
    return np.array(tape.batch_jacobian(outputs, variable))


def test_the_ledger_of_a_network_that_keeps_one_of_two_numbers():
    inputs = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    keeps_first = [dense([[1], [0]]), Layer("relu", "relu", (1,))]
    with pytest.warns(UserWarning, match="2 of 4 points lie on a wall"):
        book = fibers.ledger(keeps_first, inputs)
    # Variances 1 and 1/4: a fifth of the sum is in the number thrown away.
    np.testing.assert_allclose(book.invisible[0], 0.2)
    np.testing.assert_array_equal(book.ranks, [[1] * 4, [0, 1, 0, 1]])
    np.testing.assert_allclose(book.invisible[1], [1, 0.2, 1, 0.2])
    assert "invisible" in str(book)


def test_softmax_loses_one_more_dimension():
    model = random_network(2)
    model.add(layers.Softmax(name="soft"))
    inputs = np.random.default_rng(2).random((9, 12))
    book = fibers.ledger(model, inputs)
    assert book.layers[-2:] == ["logits", "softmax"]
    full = book.ranks[-2] == 3
    assert full.any() and (book.ranks[-1][full] == 2).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones(12), "two inputs at least"),
        (np.ones((1, 12)), "two inputs at least"),
        (np.ones((5, 11)), "layer 'h1 before relu' has a kernel"),
        (np.full((5, 12), np.nan), "finite"),
        (np.ones((5, 12)), "all inputs are the same"),
    ],
)
def test_the_ledger_refuses_data_in_which_nothing_can_be_counted(inputs, message):
    with pytest.raises(ValueError, match=message):
        fibers.ledger(random_network(0), inputs)


def fresh_network():
    """Without biases, and blank paper lies on the wall of every unit."""
    keras.utils.set_random_seed(0)
    parts = [layers.Conv2D(2, 2, activation="relu", name="conv"), layers.Flatten()]
    return keras.Sequential([keras.Input((4, 4, 1)), *parts, layers.Dense(3)])


def test_points_on_a_wall_are_warned_of_and_points_beside_it_are_not(recwarn):
    inputs = np.random.default_rng(0).random((6, 4, 4, 1))
    fibers.ledger(fresh_network(), inputs)
    assert not recwarn.list
    inputs[:2, :2, :2] = 0  # a corner of blank paper
    with pytest.warns(UserWarning, match="2 of 6 points lie on a wall, .* no Jacobian"):
        fibers.ledger(fresh_network(), inputs)


def test_a_softmax_at_every_pixel_loses_one_dimension_each():
    keras.utils.set_random_seed(0)
    slide = layers.Conv2D(3, 2, activation="softmax", name="slide")
    model = keras.Sequential([keras.Input((3, 3, 2)), slide])
    inputs = np.random.default_rng(0).random((4, 3, 3, 2))
    book = fibers.ledger(model, inputs)
    assert book.layers == ["slide before softmax", "softmax"]
    assert (book.ranks[0] == 12).all() and (book.ranks[1] == 8).all()


def test_one_point_is_enough_for_the_books():
    random = np.random.default_rng(0)
    network = [dense(random.normal(size=(4, 3)))]
    books = fibers.ledger(network, random.random((5, 4)), points=1)
    assert books.ranks.tolist() == [[3]]
