"""Fibres: what has the same output is known, found, and all there is."""

from fractions import Fraction

import keras
import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from netinvert import fibers
from netinvert.certificates import Layer, verify
from netinvert.data import load_mnist
from netinvert.fibers import Infeasible, polytope
from netinvert.fibers import exact as repair
from netinvert.fibers.layers import affine_steps, cell, pattern
from netinvert.fibers.polytope import Polytope
from netinvert.forward import tap
from netinvert.models import pretrained

layers = keras.layers


def dense(weights, bias=0.0, name="sum"):
    kernel = np.array(weights, "float32")
    bias = np.full(kernel.shape[1], bias, "float32")
    return Layer(name, "dense", bias.shape, kernel, bias)


def random_network(seed, *extra):
    """A small dense network with biases of its own."""
    keras.utils.set_random_seed(seed)
    hidden = [layers.Dense(6, activation="relu", name=f"h{k}") for k in (1, 2)]
    last = layers.Dense(3, name="logits")
    model = keras.Sequential([keras.Input((12,)), *hidden, *extra, last])
    generator = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([generator.normal(size=shape) for shape in shapes])
    return model


SUM = [dense([[1], [1]])]  # f(x1, x2) = x1 + x2
SUM_WITH_RELU = [dense([[1], [1]], bias=-1), Layer("relu", "relu", (1,))]


def test_the_fibre_of_a_sum_is_a_diagonal():
    found = fibers.collision(SUM, [0.5, 0.5], [1, 0.5])
    np.testing.assert_allclose(found.inputs, [[0.5, 0.5], [0.75, 0.25]])
    assert found.values == (1,)
    lowest, highest = fibers.widths(SUM, np.array([0.25, 0.5]))
    np.testing.assert_allclose([lowest, highest], [[0, 0], [0.75, 0.75]])


def test_where_a_relu_is_off_the_fibre_has_an_inside():
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


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_point_is_that_of_another_solver(seed):
    generator = np.random.default_rng(seed)
    rows, inside = generator.normal(size=(7, 9)), generator.random(9)
    equal = np.arange(7) < 3
    values = rows @ inside - np.where(equal, 0, 0.1)
    space = Polytope(rows, values, equal, 0.0, 1.0)
    target = generator.normal(size=9) * 2
    expected = minimize(
        lambda x: ((x - target) ** 2).sum(),
        inside,
        bounds=[(0, 1)] * 9,
        constraints=[
            {"type": "eq", "fun": lambda x: rows[equal] @ x - values[equal]},
            {"type": "ineq", "fun": lambda x: rows[~equal] @ x - values[~equal]},
        ],
    )
    assert expected.success
    np.testing.assert_allclose(polytope.nearest(space, target), expected.x, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_widths_are_those_of_one_linear_program_per_pixel(seed):
    model = random_network(seed)
    x = np.random.default_rng(seed).random(12)
    space = fibers.fibre(model, x)
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


def test_samples_fill_the_fibre_and_leave_the_output_alone():
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


@pytest.mark.parametrize("seed", range(3))
def test_the_ledger_agrees_with_automatic_differentiation(seed):
    model = random_network(seed, layers.LeakyReLU(negative_slope=0.25))
    inputs = np.random.default_rng(seed).random((40, 12)).astype("float32")
    book = fibers.ledger(model, inputs, points=5)
    assert book.layers[-1] == "logits" and book.size == 12
    for k, name in enumerate(book.layers):
        if "before" in name:
            continue
        ranks = [
            np.linalg.matrix_rank(j, tol=1e-4) for j in jacobians(model, name, inputs)
        ]
        assert book.ranks[k].tolist() == ranks[:5]
        np.testing.assert_array_equal(book.fibres[k], 12 - np.array(ranks[:5]))


def jacobians(model, name, inputs):
    import tensorflow as tf

    variable = tf.Variable(inputs[:5])
    with tf.GradientTape() as tape:
        outputs = tap(model, name)(variable)
    return np.array(tape.batch_jacobian(outputs, variable))


def test_the_ledger_of_a_network_that_keeps_one_of_two_numbers():
    inputs = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    keeps_first = [dense([[1], [0]]), Layer("relu", "relu", (1,))]
    book = fibers.ledger(keeps_first, inputs)
    # Variances 1 and 1/4: a fifth of the sum is in the number thrown away.
    np.testing.assert_allclose(book.invisible[0], 0.2)
    np.testing.assert_array_equal(book.ranks, [[1] * 4, [0, 1, 0, 1]])
    np.testing.assert_allclose(book.invisible[1], [1, 0.2, 1, 0.2])
    assert "fibre" in str(book) and book.dead.tolist() == [0, 0]


def test_softmax_loses_one_more_dimension():
    model = random_network(2)
    model.add(layers.Softmax(name="soft"))
    inputs = np.random.default_rng(2).random((9, 12))
    book = fibers.ledger(model, inputs)
    assert book.layers[-2:] == ["logits", "softmax"]
    full = book.ranks[-2] == 3
    assert full.any() and (book.ranks[-1][full] == 2).all()


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kind", [layers.Conv2D, layers.AveragePooling2D])
def test_the_matrix_of_a_sliding_window_is_the_layer(kind, padding):
    keras.utils.set_random_seed(0)
    size = (5,) if kind is layers.Conv2D else ()
    layer = kind(*size, (3, 2), strides=(2, 3), padding=padding, name="slide")
    model = keras.Sequential([keras.Input((8, 7, 2)), layer])
    images = np.random.default_rng(0).random((3, 8, 7, 2)).astype("float32")
    steps = affine_steps(fibers.layers_of(model), (8, 7, 2))
    flat = images.reshape(3, -1).astype("float64")
    (step,) = steps
    outputs = (flat @ step.matrix + step.bias) / step.divisor
    np.testing.assert_allclose(outputs, model(images).numpy().reshape(3, -1), atol=1e-6)


def test_in_its_cell_a_network_is_one_affine_map():
    model = random_network(3)
    x = np.random.default_rng(3).random(12)
    steps = affine_steps(fibers.layers_of(model), (12,))
    here = cell(steps, pattern(steps, x), 12)
    assert (here.walls @ x >= here.heights).all()
    near = x + 1e-6
    outputs = model(near[None].astype("float32")).numpy()[0]
    np.testing.assert_allclose(here.jacobian @ near + here.offset, outputs, atol=1e-4)


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


@pytest.mark.parametrize(
    ("x", "toward", "message"),
    [
        ([0.5] * 11, [0.5] * 12, "without a batch axis; got shape"),
        ([0.5] * 12, [0.5] * 11, "without a batch axis; got shape"),
        ([0.5] * 11 + [1.5], [0.5] * 12, "outside the bounds"),
        ([0.5] * 11 + [np.nan], [0.5] * 12, "must be finite"),
        ([0.5] * 12, [0.5] * 11 + [np.inf], "must be finite"),
        ([[0.5] * 12], [[0.4] * 12], "without a batch axis; got shape .1, 12"),
        ([0.5] * 12, [[0.5] * 4] * 3, "needs the shape .12,. of x, got .3, 4"),
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
        ({"crossings": -1}, "crossings must be a whole number from 0 on, got -1"),
        ({"crossings": None}, "crossings must be a whole number from 0 on, got None"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        fibers.metamer(random_network(0), [0.5] * 12, [0.4] * 12, **settings)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones(12), "two inputs at least"),
        (np.ones((1, 12)), "two inputs at least"),
        (np.ones((5, 11)), "as layer 'h1 before relu' takes it"),
        (np.full((5, 12), np.nan), "finite"),
        (np.ones((5, 12)), "all inputs are the same"),
    ],
)
def test_the_ledger_refuses_data_in_which_nothing_can_be_counted(inputs, message):
    with pytest.raises(ValueError, match=message):
        fibers.ledger(random_network(0), inputs)


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


def test_an_empty_polytope_is_called_empty():
    rows, values = np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([1.5, 0.75])
    space = Polytope(rows, values, np.array([True, False]), 0.0, 0.7)
    with pytest.raises(Infeasible, match=r"in \[0, 0.7\] .* 1 equations and 1 ineq"):
        polytope.nearest(space, np.zeros(2))


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


def test_a_twin_is_looked_at_again_before_it_is_handed_over():
    whole = [repair.as_integers(affine_steps(SUM, (2,))[0])]
    half, value, bounds = Fraction(1, 2), (Fraction(1),), (0.0, 1.0)
    repair.check(whole, [half, half], value, bounds)
    for twin in ([half, half + Fraction(1, 10**40)], [Fraction(-1), Fraction(2)]):
        with pytest.raises(Infeasible, match="lies on a wall"):
            repair.check(whole, twin, value, bounds)


def test_a_black_picture_has_a_metamer_in_a_network_without_biases():
    keras.utils.set_random_seed(0)
    units = [layers.Dense(n, activation="relu") for n in (16, 8)]
    model = keras.Sequential([keras.Input((64,)), *units, layers.Dense(3)])
    wanted = np.random.default_rng(0).random(64)
    found = fibers.metamer(model, np.zeros(64), wanted)
    assert verify(found, fibers.layers_of(model)).startswith("Proved")


@pytest.mark.parametrize("seed", range(4))
def test_with_many_walls_the_nearest_point_is_found_on_the_interior_path(seed):
    generator = np.random.default_rng(seed)
    rows, inside = generator.normal(size=(14, 9)), generator.random(9)
    equal = np.arange(14) < 2
    values = rows @ inside - np.where(equal, 0, generator.uniform(0, 2, 14))
    target = generator.normal(size=9) * 2
    few = Polytope(rows, values, equal, 0.0, 1.0)
    found = polytope.nearest(few, target)
    assert (rows @ found >= values - 1e-6)[~equal].all()
    np.testing.assert_allclose((rows @ found)[equal], values[equal], atol=1e-6)
    # The best point of a convex set: no other of its points lies towards the target.
    program = polytope.linear_program(few, found - target)
    assert (found - target) @ found == pytest.approx(program.fun, abs=1e-6)
    with pytest.raises(Infeasible, match="2 equations and 12 inequalities"):
        polytope.nearest(few._replace(values=values + 30), target)
    with pytest.raises(Infeasible, match="within reach"):
        polytope.nearest(few, target, np.linalg.norm(found - target) * 0.99)
