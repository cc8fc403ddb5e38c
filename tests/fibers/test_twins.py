"""Fibers: what has the same output is known, found, and all there is."""

import keras
import numpy as np
import pytest
from scipy.optimize import linprog

from netinvert import fibers
from netinvert.certificates import Layer, verify
from netinvert.data import load_mnist
from netinvert.fibers import Infeasible
from netinvert.models import pretrained
from tests.fibers.networks import SUM, SUM_WITH_RELU, dense, random_network

layers = keras.layers


def test_the_fiber_of_a_sum_is_a_diagonal():
    found = fibers.collision(SUM, [0.5, 0.5], [1, 0.5])
    np.testing.assert_allclose(found.inputs, [[0.5, 0.5], [0.75, 0.25]])
    assert found.values == (1,)
    lowest, highest = fibers.widths(SUM, np.array([0.25, 0.5]))
    np.testing.assert_allclose([lowest, highest], [[0, 0], [0.75, 0.75]])


def test_where_a_relu_is_off_the_fiber_has_an_inside():
    # relu(x1 + x2 - 1) is 0 on the whole triangle x1 + x2 <= 1.
    found = fibers.metamer(SUM_WITH_RELU, [0.25, 0.25], [0.625, 0.25], crossings=0)
    np.testing.assert_allclose(found.inputs[1], [0.625, 0.25], atol=1e-8)
    with pytest.raises(Infeasible, match="only 0 lie well inside"):
        fibers.metamer(SUM, [0.0, 1.0], [1.0, 0.0])


def test_without_crossing_the_answer_is_the_closest_in_the_cell_of_x():
    # |x1 - 0.5| = relu(x1 - 0.5) + relu(0.5 - x1) does not see x2. Equal values lie
    # on both sides of the fold, in two cells.
    fold = [
        dense([[1, -1], [0, 0]], name="two")._replace(bias=np.array([-0.5, 0.5])),
        Layer("relu", "relu", (2,)),
        dense([[1], [1]], name="fold"),
    ]
    found = fibers.metamer(fold, [0.25, 0.25], [0.75, 0.75], crossings=0)
    np.testing.assert_allclose(found.inputs[1], [0.25, 0.75], atol=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_every_certificate_of_a_random_network_verifies(seed):
    model = random_network(seed)
    first, second = np.random.default_rng(seed).random((2, 12))
    for found in (
        fibers.collision(model, first, second),
        fibers.metamer(model, first, second, "h1"),
        fibers.metamer(model, first, second, "h2 before relu", crossings=0),
        fibers.metamer(model, first, second),
    ):
        assert verify(found, fibers.layers_of(model)).startswith("Proved")
        moved = np.linalg.norm(found.inputs - second, axis=1)
        assert moved[1] < moved[0], "the twin is no closer to the picture than x"


@pytest.mark.parametrize("seed", range(3))
def test_crossing_walls_never_leads_farther_away(seed):
    model = random_network(seed)
    first, second = np.random.default_rng(seed + 10).random((2, 12))
    far = [
        np.linalg.norm(
            fibers.metamer(model, first, second, crossings=n).inputs[1] - second
        )
        for n in (0, 1, 5)
    ]
    assert far[0] >= far[1] - 1e-6 and far[1] >= far[2] - 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_the_widths_are_those_of_one_linear_program_per_pixel(seed):
    model = random_network(seed)
    x = np.random.default_rng(seed).random(12)
    space = fibers.fiber(model, x)
    rows, values, equal = space.rows, space.values, space.equal
    lowest, highest = fibers.widths(model, x)
    for pixel in range(12):
        for sign, end in ((1, lowest), (-1, highest)):
            program = linprog(
                sign * np.eye(12)[pixel],
                A_ub=-rows[~equal],
                b_ub=-values[~equal],
                A_eq=rows[equal],
                b_eq=values[equal],
                bounds=(0, 1),
            )
            assert end[pixel] == pytest.approx(sign * program.fun, abs=1e-6)


def test_samples_fill_the_fiber_and_leave_the_output_alone():
    # On the triangle x1 + x2 <= 1 the mean is (1/3, 1/3), of the uniform law.
    drawn = fibers.samples(SUM_WITH_RELU, np.array([0.2, 0.2]), 400, steps=60)
    assert (drawn.sum(axis=1) <= 1).all() and drawn.min() >= 0
    np.testing.assert_allclose(drawn.mean(axis=0), 1 / 3, atol=0.04)
    model = random_network(0)
    x = np.random.default_rng(0).random(12)
    drawn = fibers.samples(model, x, 5)
    outputs = model(np.vstack([x, drawn]).astype("float32")).numpy()
    np.testing.assert_allclose(outputs, np.tile(outputs[0], (6, 1)), atol=1e-4)
    assert (
        np.linalg.norm(drawn[:, None] - drawn, axis=2)[np.triu_indices(5, 1)].min()
        > 0.05
    )
    np.testing.assert_array_equal(drawn, fibers.samples(model, x, 5))


def test_moving_along_the_unseen_part_changes_nothing():
    model = random_network(1)
    x = np.random.default_rng(1).random((4, 12))
    seen, unseen = fibers.split(model, x, "h1 before relu")
    np.testing.assert_allclose(seen + unseen, x)
    first = model.layers[0].get_weights()[0].astype("float64")
    np.testing.assert_allclose(unseen @ first, 0, atol=1e-10)
    np.testing.assert_allclose((seen * unseen).sum(axis=1), 0, atol=1e-10)


def test_a_collision_needs_the_first_layer_only():
    keras.utils.set_random_seed(0)
    bent, normal = layers.Dense(5, activation="tanh", name="bent"), layers.Dense(2)
    model = keras.Sequential(
        [keras.Input((12,)), bent, layers.BatchNormalization(), normal]
    )
    first, second = np.random.default_rng(0).random((2, 12))
    found = fibers.collision(model, first, second)
    assert "Proved" in verify(found, fibers.layers_of(model, "bent before tanh"))
    np.testing.assert_allclose(*model(found.inputs.astype("float32")), atol=1e-5)
    for ask in (fibers.metamer, fibers.collision):
        wrong = keras.Sequential(
            [keras.Input((12,)), layers.BatchNormalization(), layers.Dense(2)]
        )
        with pytest.raises(ValueError, match=r"'batch_normalization.*BatchNormal"):
            ask(wrong, first, second)
    with pytest.raises(ValueError, match="'bent'.*'tanh'.* layer='bent before tanh'"):
        fibers.metamer(model, first, second)


@pytest.mark.parametrize(
    ("x", "toward", "message"),
    [
        ([0.5] * 11, [0.5] * 12, "without a batch axis; got shape"),
        ([0.5] * 12, [0.5] * 11, "without a batch axis; got shape"),
        ([0.5] * 11 + [1.5], [0.5] * 12, "outside the bounds"),
        ([0.5] * 11 + [np.nan], [0.5] * 12, "must be finite"),
        ([0.5] * 12, [0.5] * 11 + [np.inf], "must be finite"),
        ([[0.5] * 12], [[0.4] * 12], "without a batch axis; got shape .1, 12"),
        ([0.5] * 12, [[0.5] * 4] * 3, "without a batch axis; got shape .3, 4"),
        ([0.5] * 12, [0.5] * 12, "x itself is the closest"),
    ],
)
def test_what_cannot_be_asked_is_answered_with_the_reason(x, toward, message):
    with pytest.raises(ValueError, match=message):
        fibers.metamer(random_network(0), x, toward)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bounds": None}, "low < high, got None"),
        ({"bounds": (1, 0)}, "low < high, got .1, 0"),
        ({"bounds": (0, np.inf)}, "two finite numbers"),
        ({"crossings": -1}, "crossings must be at least 0, got -1"),
        ({"crossings": None}, "crossings must be a whole number, got None"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        fibers.metamer(random_network(0), [0.5] * 12, [0.4] * 12, **settings)


def test_what_is_no_network_is_refused():
    with pytest.raises(ValueError, match="a Keras model or a list .* got function"):
        fibers.metamer(lambda x: x, [0.5] * 12, [0.4] * 12)
    broken = random_network(0)
    broken.set_weights([np.full_like(w, np.nan) for w in broken.get_weights()])
    with pytest.raises(ValueError, match="'h1' .* weights that are finite"):
        fibers.metamer(broken, [0.5] * 12, [0.4] * 12)


def test_an_unknown_layer_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'nowhere'. There are 'h1 before relu', 'h1'"):
        fibers.metamer(random_network(0), [0.5] * 12, [0.4] * 12, "nowhere")


def test_an_injective_layer_has_no_collision_and_says_so():
    wide = [dense(np.eye(3, 5) + 0.1)]
    with pytest.raises(Infeasible, match="injective there, .* full rank 3"):
        fibers.collision(wide, [0.5] * 3, [0.1] * 3)


def distance_left(found, wanted):
    far = np.linalg.norm((found.inputs - wanted).reshape(2, -1), axis=1)
    return far[1] / far[0]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_digits_have_verified_metamers_that_look_like_others(place):
    (_, _), (x_test, _) = load_mnist()
    found = fibers.metamer(pretrained("mlp"), x_test[place], x_test[place + 1])
    assert verify(found, fibers.layers_of(pretrained("mlp"))).startswith("Proved")
    assert distance_left(found, x_test[place + 1]) < 0.6


# For the second digit, hundreds of walls meet at nearly the same place.
@pytest.mark.parametrize(("place", "layer"), [(1, "logits"), (0, "hidden")])
def test_the_convolutional_network_has_metamers_too(place, layer):
    (_, _), (x_test, _) = load_mnist()
    x, wanted = x_test[place : place + 2]
    found = fibers.metamer(pretrained("cnn"), x, wanted, layer, crossings=0)
    assert verify(found, fibers.layers_of(pretrained("cnn"))).startswith("Proved")
    assert distance_left(found, wanted) < 0.97


def test_the_first_layer_of_the_dense_network_collides_and_that_of_the_cnn_does_not():
    (_, _), (x_test, _) = load_mnist()
    found = fibers.collision(pretrained("mlp"), x_test[0], x_test[1])
    assert len(found.values) == 128
    assert verify(found, fibers.layers_of(pretrained("mlp"))).startswith("Proved")
    with pytest.raises(Infeasible, match="injective"):
        fibers.collision(pretrained("cnn"), x_test[0], x_test[1])


@pytest.mark.parametrize("seed", range(8))
def test_on_the_walls_of_a_cell_only_what_is_exact_is_answered(seed):
    # Without biases, zero lies on the wall of every unit; as does every input of
    # which a unit sees only zeros.
    model = random_network(seed)
    for layer in model.layers:
        layer.set_weights([layer.get_weights()[0], np.zeros(layer.units)])
    wanted = np.random.default_rng(seed).random(12)
    for x in (np.zeros(12), np.repeat([0.0, 0.5], 6)):
        for picture in (wanted, 4 * wanted - 2):
            try:
                found = fibers.metamer(model, x, picture)
            except Infeasible:
                continue
            assert verify(found, fibers.layers_of(model)).startswith("Proved")


def test_a_black_picture_has_a_metamer_in_a_network_without_biases():
    keras.utils.set_random_seed(0)
    units = [layers.Dense(n, activation="relu") for n in (16, 8)]
    model = keras.Sequential([keras.Input((64,)), *units, layers.Dense(3)])
    wanted = np.random.default_rng(0).random(64)
    found = fibers.metamer(model, np.zeros(64), wanted)
    assert verify(found, fibers.layers_of(model)).startswith("Proved")
