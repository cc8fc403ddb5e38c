"""A certificate proves what it says, and nothing that was tampered with passes."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction

import keras
import numpy as np
import pytest

from netinvert import certificates, fibers
from netinvert.certificates import Certificate, Layer, Refused, load, save, verify
from netinvert.data import ASSETS, load_mnist
from netinvert.forward import tap
from netinvert.models import pretrained

HALF = Fraction(1, 2)


class Chameleon(str):
    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


class Fickle(list):
    """A list that gives another network when it is cut."""

    def __getitem__(self, place):
        return [toy()[0]._replace(kernel=np.zeros((2, 1), "float32"))]


def toy():
    """One unit that adds two inputs, and a ReLU."""
    kernel, bias = np.ones((2, 1), "float32"), np.zeros(1, "float32")
    return [Layer("sum", "dense", (1,), kernel, bias), Layer("relu", "relu", (1,))]


def toy_certificate(**changes):
    facts = {
        "layer": "sum",
        "values": (Fraction(1),),
        "first": (HALF, HALF),
        "second": (Fraction(1, 3), Fraction(2, 3)),
        "shape": (2,),
        "low": Fraction(0),
        "high": Fraction(1),
        "network": certificates.fingerprint(toy()[:1]),
    }
    return Certificate(**facts | changes)


@pytest.fixture(scope="module")
def network():
    """A network with every kind of layer, on images of 7 x 6 pixels."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((7, 6, 1)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="leaky_relu"),
            layers.AveragePooling2D(3, strides=1, padding="same"),
            layers.Conv2D(3, (2, 1), activation="relu", use_bias=False),
            layers.Reshape((3, 9)),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def certificate(network):
    first, second = np.random.default_rng(0).random((2, 7, 6, 1))
    return fibers.metamer(network, first, second)


def convolutional(seed):
    """A small random network with convolution, average and softmax, and biases."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    padding = ("same", "valid")[seed % 2]
    model = keras.Sequential(
        [
            keras.Input((6, 5, 2)),
            layers.Conv2D(3, (3, 2), padding=padding, activation="relu", name="slide"),
            layers.AveragePooling2D(2, padding=padding, name="mean"),
            layers.Flatten(),
            layers.Dense(9, activation=("relu", "leaky_relu")[seed % 2], name="wide"),
            layers.Dense(4, activation="softmax", name="logits"),
        ]
    )
    generator = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model.get_weights()]
    weights = [0.5 * generator.normal(size=shape) for shape in shapes]
    # Biases above zero keep units on, so that a change of any pixel matters.
    model.set_weights([1 + abs(w) if w.ndim == 1 else w for w in weights])
    return model


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("layer", ["mean", "wide", None])
def test_random_networks_prove_their_pairs_and_no_others(seed, layer):
    model = convolutional(seed)
    layers, generator = fibers.layers_of(model), np.random.default_rng(seed)
    found = fibers.metamer(model, *generator.random((2, 6, 5, 2)), layer)
    assert verify(found, layers).startswith("Proved")
    for field in ("first", "second", "values"):
        numbers = list(getattr(found, field))
        for place in generator.choice(len(numbers), 3, replace=False):
            bent = [*numbers]
            bent[place] += Fraction(1 if bent[place] < HALF else -1, 2**70)
            with pytest.raises(Refused, match="other values"):
                verify(replace(found, **{field: tuple(bent)}), layers)
    for place, one in enumerate(layers[:2]):
        if one.kernel is not None:
            others = [*layers]
            others[place] = nudged(one, (0,) * one.kernel.ndim)
            with pytest.raises(Refused, match="other weights"):
                verify(found, others)


@pytest.mark.parametrize("seed", range(3))
def test_the_ledger_of_a_convolutional_network_agrees_with_differences(seed):
    model = convolutional(seed)
    inputs = np.random.default_rng(seed).random((12, 6, 5, 2))
    book = fibers.ledger(model, inputs, points=3)
    for name in ("slide", "mean", "wide", "logits"):
        tapped = fibers.layers_of(model, None if name == "logits" else name)
        row = book.layers.index(tapped[-1].name)
        for n in range(3):
            assert book.ranks[row, n] == rank_by_differences(tapped, inputs[n])


def rank_by_differences(layers, x):
    """Rank of a Jacobian from exact values at x and a small step along each number."""

    def values(flat):
        return certificates.exact_values(layers, flat, x.shape)

    start, step = [Fraction(v) for v in x.ravel().tolist()], Fraction(1, 2**60)
    here, rows = values(start), []
    for place in range(x.size):
        moved = [*start]
        moved[place] += step
        ahead = values(moved)
        rows.append([float((a - b) / step) for a, b in zip(ahead, here, strict=True)])
    return np.linalg.matrix_rank(np.array(rows), tol=1e-8)


def test_a_sum_that_a_reader_can_check_by_hand():
    said = verify(toy_certificate(), toy())
    assert said == (
        "Proved: two inputs in [0, 1] that differ in 2 of 2 numbers have the same 1 "
        "values at 'sum', exactly."
    )


def test_one_third_is_not_rounded():
    nearly = (Fraction(1 / 3), Fraction(2 / 3))
    assert sum(map(float, nearly)) == 1.0
    with pytest.raises(Refused, match="second input has other values"):
        verify(toy_certificate(second=nearly), toy())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layer": "relu"}, "other weights or layers"),
        ({"layer": Chameleon("x")}, "layer must be a str, not Chameleon"),
        ({"network": Chameleon("x")}, "network must be a str, not Chameleon"),
        ({"shape": (int("9" * 4000),) * 300}, "is no shape"),
        ({"shape": (1,) * 70 + (2,)}, "is no shape"),
        ({"layer": "nowhere"}, "no layer 'nowhere'"),
        ({"values": (Fraction(2),)}, "first input has other values"),
        ({"values": (Fraction(1), Fraction(0))}, "first input has other values"),
        ({"first": (HALF, HALF + Fraction(1, 10**30))}, "first input has other values"),
        ({"second": (HALF, HALF)}, "the two inputs are the same"),
        ({"second": (Fraction(-1), Fraction(2))}, "second input leaves the box"),
        ({"high": HALF}, "second input leaves the box"),
        ({"second": (Fraction(1),)}, "has not the shape"),
        ({"first": (0.5, HALF)}, "no fraction of Python.s integers"),
        ({"network": "0" * 64}, "other weights or layers"),
        ({"first": [0, HALF]}, "first is no tuple"),
        ({"second": None}, "second is no tuple"),
        ({"low": float("-inf")}, "no fraction of Python.s integers, but a float"),
        ({"shape": None}, "is no shape"),
        ({"shape": (-1, -2)}, "is no shape"),
        ({"shape": (2.0,)}, "is no shape"),
        ({"shape": (2, 1)}, "takes another shape"),
    ],
)
def test_a_false_claim_is_refused_with_the_reason(changes, reason):
    with pytest.raises(Refused, match=reason):
        verify(toy_certificate(**changes), toy())


def test_a_list_that_changes_while_it_is_read_proves_nothing():
    network = certificates.fingerprint(Fickle()[:])
    claim = toy_certificate(values=(Fraction(0),), network=network)
    with pytest.raises(Refused, match="other weights or layers"):
        verify(claim, Fickle(toy()))


def test_an_unknown_kind_of_layer_is_named_as_such():
    layers = [toy()[0]._replace(kind="tanh")]
    claim = toy_certificate(network=certificates.fingerprint(layers))
    with pytest.raises(Refused, match="unknown kind 'tanh'"):
        verify(claim, layers)


def scaling(number):
    """One unit, f(x) = 128 x, and a certificate that 0 and a number are equal."""
    kernel, bias = np.full((1, 1), 128.0), np.zeros(1)
    layers = [Layer("scale", "dense", (1,), kernel, bias)]
    zero, other = type(number)(0), number
    claim = toy_certificate(
        **{"layer": "scale", "values": (zero,), "first": (zero,), "second": (other,)},
        **{"shape": (1,), "high": 2, "network": certificates.fingerprint(layers)},
    )
    return claim, layers


@pytest.mark.parametrize(
    "number",
    [
        np.uint8(2),
        np.int64(2),
        True,
        2.0,
        np.float64(2),
        2 + 0j,
        "2",
        Fraction(np.uint8(2)),
        type("Own", (Fraction,), {})(2),
        type("Own", (int,), {})(2),
    ],
    ids=lambda number: type(number).__name__,
)
def test_numbers_are_python_integers_and_fractions_and_nothing_else(number):
    with pytest.raises(Refused, match="no fraction of Python.s integers"):
        verify(*scaling(number))
    claim, layers = scaling(2)
    with pytest.raises(Refused, match="second input has other values"):
        verify(claim, layers)
    for end in ("low", "high"):
        with pytest.raises(Refused, match="no fraction of Python.s integers"):
            verify(replace(claim, **{end: number}), layers)


def test_a_fraction_that_is_not_in_lowest_terms_is_no_other_input():
    twin = Fraction(1, 2)
    twin._numerator, twin._denominator = 2, 4
    assert twin != HALF
    with pytest.raises(Refused, match="the two inputs are the same"):
        verify(toy_certificate(second=(twin, HALF)), toy())
    twin._denominator = 0
    with pytest.raises(Refused, match="no fraction of Python.s integers"):
        verify(toy_certificate(second=(twin, HALF)), toy())


def image_layers(**changes):
    kernel, bias = np.ones((2, 2, 1, 1)), np.zeros(1)
    slide = Layer("slide", "convolution", (2, 2, 1), kernel, bias, window=(2, 2))
    return [slide._replace(**changes)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"padding": "SAME"}, "padding 'SAME', not 'valid' or 'same'"),
        ({"padding": None}, "padding None"),
        ({"kind": "max"}, "unknown kind 'max'"),
        ({"kind": ["dense"]}, "unknown kind"),
        ({"kind": "average"}, "has a kernel, which a average has not"),
        ({"kind": "dense"}, "has a window, which a dense has not"),
        ({"slope": 0.5}, "has a slope, which a convolution has not"),
        ({"kernel": None}, "no kernel of floats"),
        ({"kernel": [[1.0]]}, "no kernel of floats"),
        ({"kernel": np.ones((2, 2, 1, 1), int)}, "no kernel of floats"),
        ({"kernel": np.ones((2, 2, 1, 1), object)}, "no kernel of floats"),
        ({"kernel": np.ones((2, 2, 1, 1), np.longdouble)}, "no kernel of floats"),
        ({"kernel": np.ma.ones((2, 2, 1, 1))}, "no kernel of floats"),
        ({"kernel": np.full((2, 2, 1, 1), np.inf)}, "kernel that is not finite"),
        ({"bias": np.full(1, np.nan)}, "bias that is not finite"),
        ({"bias": None}, "no bias of floats"),
        ({"bias": np.zeros((1, 1))}, "bias of shape .1, 1., not .1,"),
        ({"kernel": np.ones((2, 2, 1))}, "kernel of shape"),
        ({"kernel": np.ones((2, 2, 3, 1))}, "kernel of shape"),
        ({"window": (1, 1)}, "kernel of shape"),
        ({"window": (2.0, 2.0)}, "positive integers: two as window"),
        ({"window": 2}, "positive integers: two as window"),
        ({"strides": (0, 1)}, "positive integers: two as window"),
        ({"strides": (1, 1, 1)}, "positive integers: two as window"),
        ({"shape": (3, 3, 1)}, "does not give shape .3, 3, 1"),
        ({"shape": [2, 2, 1]}, "positive integers: .* a shape"),
        ({"shape": (4,)}, "positive integers: .* a shape"),
        ({"shape": ()}, "positive integers: .* a shape"),
        ({"shape": None}, "positive integers: .* a shape"),
        ({"name": 3}, "layer must be a str"),
    ],
)
def test_a_layer_written_by_hand_is_refused_with_the_reason(changes, reason):
    layers = image_layers(**changes)
    nine, ten = (Fraction(1),) * 9, (HALF,) * 9
    claim = toy_certificate(
        **{"layer": layers[0].name, "values": (Fraction(4),) * 4, "first": nine},
        **{"second": ten, "shape": (3, 3, 1), "network": "0" * 64},
    )
    with pytest.raises(Refused, match=reason):
        verify(claim, layers)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Layer("bend", "relu", (2,), slope=np.inf), "no finite slope"),
        (Layer("bend", "relu", (2,), slope="steep"), "no finite slope"),
        (Layer("bend", "relu", (2,), slope=10**400), "no finite slope"),
        (Layer("bend", "relu", (3,)), "does not give shape .3"),
        (Layer("bend", "reshape", (3,)), "does not give shape .3"),
        (Layer("mean", "average", (1, 1, 2)), "takes another shape"),
        (Layer("mean", "average", (2,), window=(10**9, 10**9)), "a shape"),
    ],
)
def test_other_layers_that_make_no_sense_are_refused_too(layer, reason):
    with pytest.raises(Refused, match=reason):
        verify(toy_certificate(layer=layer.name), [layer])


@pytest.mark.parametrize("height", [3, 10**9])  # twice the input's is the most
def test_an_average_over_a_window_without_end_is_refused(height):
    layer = Layer("mean", "average", (1, 1, 1), window=(height, 1), padding="same")
    claim = toy_certificate(
        **{"layer": "mean", "first": (HALF,), "second": (Fraction(1),)},
        **{"shape": (1, 1, 1)},
    )
    with pytest.raises(Refused, match="window .* beyond inputs"):
        verify(claim, [layer])


def test_what_a_certificate_may_need_is_bounded(tmp_path):
    long = "f" * 2_000_000
    save(toy_certificate(), tmp_path / "pair.json")
    honest = (tmp_path / "pair.json").read_text()
    start = time.process_time()
    for text, reason in (
        (honest.replace('"1/3"', f'"{long}/1{long}"'), "more than 131,072 bits"),
        (honest + " " * certificates.MOST_BYTES, "more than 33,554,432 bytes"),
    ):
        (tmp_path / "large.json").write_text(text)
        with pytest.raises(ValueError, match=f"large.json does not hold .*{reason}"):
            load(tmp_path / "large.json")
    # Denominators that are short, but whose common one is not.
    below = [2**100_000 - 1, 2**100_000 + 1, 3**100_000]
    first = (*(Fraction(1, n) for n in below),)
    with pytest.raises(Refused, match="common denominator of first takes .* bits"):
        verify(toy_certificate(first=first, shape=(3,)), toy())
    assert time.process_time() - start < 5


def test_the_bounds_are_well_above_the_largest_honest_certificate(tmp_path):
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(256, 128)).astype("float32")
    wide = [Layer("wide", "dense", (128,), kernel, kernel[0])]
    found = fibers.metamer(wide, *generator.random((2, 256)))
    assert "Proved" in verify(found, wide)
    save(found, tmp_path / "wide.json")
    assert load(tmp_path / "wide.json") == found
    longest = max(pixel.denominator.bit_length() for pixel in found.second)
    assert 1_000 < longest < certificates.MOST_BITS / 16
    size = (tmp_path / "wide.json").stat().st_size
    assert 100_000 < size < certificates.MOST_BYTES / 16


def test_what_is_saved_can_be_loaded(tmp_path):
    integers = toy_certificate(first=(0, 1))
    save(integers, tmp_path / "integers.json")
    assert load(tmp_path / "integers.json") == integers
    assert "Proved" in verify(load(tmp_path / "integers.json"), toy())
    with pytest.raises(ValueError, match="no fraction .* but a float"):
        save(toy_certificate(first=(0.5, HALF)), tmp_path / "floats.json")
    assert not (tmp_path / "floats.json").exists()


def test_a_keras_model_must_be_written_as_layers_first(network, certificate):
    with pytest.raises(
        ValueError, match=r"layers_of\(model\).*got Certificate and Sequential"
    ):
        verify(certificate, network)
    for layers, got in ((network.layers, "Conv2D|Dense"), ("d", "str")):
        with pytest.raises(ValueError, match=f"list of Layer.*and ({got})"):
            verify(certificate, layers)
    with pytest.raises(ValueError, match="needs a Certificate .*got NoneType"):
        verify(None, toy())


def test_the_exact_outputs_are_those_of_keras_up_to_rounding(network, certificate):
    values = np.array(certificate.values, "float64")
    inputs = certificate.inputs.astype("float32")
    logits = tap(network, "logits")(inputs, training=False)
    np.testing.assert_allclose(logits, [values, values], atol=1e-5)
    np.testing.assert_allclose(*network(inputs, training=False), atol=1e-6)


def test_a_certificate_survives_saving_and_loading(network, certificate, tmp_path):
    save(certificate, tmp_path / "pair.json")
    loaded = load(tmp_path / "pair.json")
    assert loaded == certificate
    assert "Proved" in verify(loaded, fibers.layers_of(network))


@pytest.mark.parametrize("field", ["first", "second", "values"])
def test_the_smallest_change_of_any_number_is_refused(network, certificate, field):
    layers, generator = fibers.layers_of(network), np.random.default_rng(1)
    numbers = getattr(certificate, field)
    for place in generator.choice(len(numbers), 3, replace=False):
        bent = list(numbers)
        bent[place] += Fraction(1 if bent[place] < HALF else -1, 2**80)
        with pytest.raises(Refused, match="other values"):
            verify(replace(certificate, **{field: tuple(bent)}), layers)


def test_the_smallest_change_of_any_weight_is_refused(network, certificate):
    layers = fibers.layers_of(network)
    for place, layer in enumerate(layers):
        if layer.kernel is not None:
            others = [*layers]
            others[place] = nudged(layer, (0,) * layer.kernel.ndim)
            with pytest.raises(Refused, match="other weights"):
                verify(certificate, others)


def test_a_forged_fingerprint_does_not_help_where_the_weight_matters(
    network, certificate
):
    layers = fibers.layers_of(network)
    pixels, shape = certificate.first, certificate.shape
    hidden = certificates.exact_values(layers[:-1], pixels, shape)
    others = [*layers[:-1], nudged(layers[-1], (int(np.argmax(hidden)), 0))]
    forged = replace(certificate, network=certificates.fingerprint(others))
    with pytest.raises(Refused, match="first input has other values"):
        verify(forged, others)


def nudged(layer, place):
    """Change one weight by the smallest step that a float32 can take."""
    kernel = layer.kernel.copy()
    kernel[place] = np.nextafter(kernel[place], np.float32(9))
    return layer._replace(kernel=kernel)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-200],
        lambda text: "Dear reader",
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: text.replace("{", '{"weights": "others.npz",', 1),
        lambda text: text.replace("version 1", "version 9"),
        lambda text: text.replace('"first"', '"fist"'),
        lambda text: text.replace('"low": "0/1"', '"low": "0/0"'),
        lambda text: text.replace('"low": "0/1"', '"low": 0.5'),
    ],
)
def test_a_file_that_holds_no_certificate_is_refused(certificate, tmp_path, damage):
    path = tmp_path / "pair.json"
    save(certificate, path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match="pair.json does not hold a certificate"):
        load(path)


def test_the_pair_that_is_shipped_for_the_convolutional_network_is_two_digits():
    pair = load(ASSETS / "cnn_pair.json")
    assert "Proved" in verify(pair, fibers.layers_of(pretrained("cnn")))
    assert pair.layer == "logits" and (pair.low, pair.high) == (0, 1)
    (_, _), (x_test, y_test) = load_mnist()
    np.testing.assert_allclose(pair.inputs[0], x_test[0])
    called = pretrained("evaluator")(pair.inputs.astype("float32")).numpy().argmax(1)
    assert called.tolist() == y_test[:2].tolist() and called[0] != called[1]


SKEPTIC = """
import sys
import numpy as np
import certificates
from certificates import Layer

arrays = list(np.load(sys.argv[1]).values())
layers = [Layer("flatten", "reshape", (784,))]
w = arrays
layers += [
    Layer("hidden_1 before relu", "dense", (128,), w[0], w[1]),
    Layer("hidden_1", "relu", (128,)),
    Layer("hidden_2 before relu", "dense", (64,), w[2], w[3]),
    Layer("hidden_2", "relu", (64,)),
    Layer("logits", "dense", (10,), w[4], w[5]),
]
print(certificates.verify(certificates.load(sys.argv[2]), layers))
assert not {"tensorflow", "keras", "scipy", "flint", "netinvert"} & set(sys.modules)
"""


def test_a_skeptic_needs_neither_tensorflow_nor_the_package(tmp_path):
    (_, _), (x_test, _) = load_mnist()
    found = fibers.metamer(pretrained("mlp"), x_test[0], x_test[1])
    save(found, tmp_path / "pair.json")
    command = [sys.executable, "-c", SKEPTIC, ASSETS / "mlp.npz", "pair.json"]
    environment = {"PYTHONPATH": str(ASSETS.parent)}
    answer = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert answer.stdout.startswith("Proved: two inputs in [0, 1]"), answer.stderr
    assert json.loads((tmp_path / "pair.json").read_text())["layer"] == "logits"
