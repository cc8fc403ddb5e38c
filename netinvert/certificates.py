"""Proofs that two different inputs have exactly the same output, and their check.

A certificate names a layer and holds two inputs as fractions. :func:`verify` runs
the network on both in integer arithmetic, without any rounding, and compares. It
shares no code with :mod:`netinvert.fibers`, which finds the inputs, and needs no
TensorFlow: this file runs alone, beside numpy.

What is proved is a statement about the function that the weights define on real
numbers: floating-point weights are fractions with a power of two below the line, and
so is the slope of a leaky ReLU, as the float64 that its setting holds. Not proved is
what a particular device computes: it rounds after every operation, so the two
outputs that it prints may differ in their last digits.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

FORMAT = "netinvert certificate, version 1"
# What a certificate may need, and is read in seconds. One of 512 equations takes
# 18,000 bits and 5 MB.
MOST_BITS = 2**17  # of a numerator or denominator, also a common one
MOST_BYTES = 2**25  # of a file
WRONG = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError)
WRONG += (RecursionError,)
FLOATS = ("float16", "float32", "float64")
KINDS = {  # the fields that each kind of layer uses, and the axes of its values
    "reshape": ((), None),
    "relu": (("slope",), None),
    "average": (("window", "strides", "padding"), 3),
    "dense": (("kernel", "bias"), 1),
    "convolution": (("kernel", "bias", "window", "strides", "padding"), 3),
}


class Refused(ValueError):
    """The certificate does not prove what it claims."""


class Layer(NamedTuple):
    """One step of a network, as plain as it gets.

    ``kind`` is "reshape", "dense", "convolution", "average" or "relu"; ``shape`` is
    that of the output, without batch. Kernels are laid out as in Keras. A relu
    multiplies what is negative by ``slope``.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    kernel: np.ndarray | None = None
    bias: np.ndarray | None = None
    window: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: str = "valid"
    slope: float = 0.0


@dataclass(frozen=True)
class Certificate:
    """The claim that two inputs in a box are different and their values equal.

    ``layer`` names the layer after which the ``values`` are equal, ``first`` and
    ``second`` are the inputs of a ``shape``, flattened, in the range from ``low`` to
    ``high``; ``network`` is the :func:`fingerprint` of the network up to the layer.
    """

    layer: str
    values: tuple[Fraction, ...]
    first: tuple[Fraction, ...]
    second: tuple[Fraction, ...]
    shape: tuple[int, ...]
    low: Fraction
    high: Fraction
    network: str

    @property
    def inputs(self) -> np.ndarray:
        """Both inputs, rounded to float64 (2, ``*shape``)."""
        both = np.array([self.first, self.second], dtype="float64")
        return both.reshape(2, *self.shape)

    def __repr__(self) -> str:
        return f"<Certificate of two inputs {self.shape} equal at {self.layer!r}>"


def verify(certificate: Certificate, layers: Sequence[Layer]) -> str:
    """Check a certificate in exact arithmetic; return what was proved, in words.

    Parameters
    ----------
    certificate : Certificate
        Its numbers are Python's ``int`` and ``Fraction``: others may overflow.
    layers : sequence of Layer
        The network, from :func:`netinvert.fibers.layers_of` or written by hand.

    Raises
    ------
    Refused
        With the reason, if the claim is false, about another network, larger than
        what is checked here, or if a layer is none that can be run exactly.
    ValueError
        If ``layers`` is no list of layers.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        got = type(layers).__name__
    else:
        got = next((type(x).__name__ for x in layers if type(x) is not Layer), "")
    if got:
        raise ValueError(
            "verify needs a list of Layer, from netinvert.fibers.layers_of(model) or "
            f"written by hand; got {got}"
        )
    if type(certificate) is not Certificate:
        raise ValueError(f"verify needs a Certificate, got {certificate!r:.80}")
    certificate = checked(certificate)
    names = [layer.name for layer in layers]
    if certificate.layer not in names:
        raise Refused(f"the network has no layer {certificate.layer!r}, only {names}")
    layers = layers[: names.index(certificate.layer) + 1]
    first, second, shape = certificate.first, certificate.second, certificate.shape
    given = shape
    for layer in layers:
        check_layer(layer, given)
        given = layer.shape
    if fingerprint(layers) != certificate.network:
        raise Refused("the certificate is about a network with other weights or layers")
    if first == second:
        raise Refused("the two inputs are the same")
    for name, pixels in {"first": first, "second": second}.items():
        if len(pixels) != math.prod(shape):
            raise Refused(f"the {name} input has not the shape {shape}")
        if not all(certificate.low <= pixel <= certificate.high for pixel in pixels):
            raise Refused(f"the {name} input leaves the box")
        if exact_values(layers, pixels, shape) != certificate.values:
            raise Refused(f"the {name} input has other values at {certificate.layer!r}")
    count = sum(a != b for a, b in zip(first, second, strict=True))
    return (
        f"Proved: two inputs in [{certificate.low}, {certificate.high}] that differ in "
        f"{count} of {len(first)} numbers have the same {len(certificate.values)} "
        f"values at {certificate.layer!r}, exactly."
    )


def checked(certificate: Certificate) -> Certificate:
    """Return a certificate in lowest terms; refuse fields that prove nothing."""
    if not is_shape(certificate.shape):
        raise Refused(
            f"{certificate.shape} is no shape: it must be a tuple of positive integers"
        )
    fields = {}
    for name in ("first", "second", "values"):
        numbers = getattr(certificate, name)
        if type(numbers) is not tuple:  # a list never equals a tuple
            raise Refused(f"{name} is no tuple of fractions")
        if None in (numbers := tuple(map(in_lowest_terms, numbers))):
            raise Refused(f"{name} holds other numbers than fractions")
        below = 1
        for number in numbers:
            below = math.lcm(below, number.denominator)
            check_bits(f"the common denominator of {name}", below, number.numerator)
        fields[name] = numbers
    for name in ("low", "high"):
        fields[name] = in_lowest_terms(getattr(certificate, name))
    if None in (fields["low"], fields["high"]):
        raise Refused("the box has other ends than fractions")
    return replace(certificate, **fields)


def in_lowest_terms(number: object) -> Fraction | None:
    """Return a number made of Python integers only; None for any other."""
    if type(number) not in (int, Fraction):
        return None
    above, below = number.numerator, number.denominator
    if type(above) is not int or type(below) is not int or below < 1:
        return None  # a Fraction of NumPy's integers, which overflow
    return Fraction(above, below)


def check_bits(what: str, *numbers: int) -> None:
    """Refuse integers with which no honest certificate needs to reckon."""
    bits = max(number.bit_length() for number in numbers)
    if bits > MOST_BITS:
        raise Refused(f"{what} takes {bits} bits, and at most {MOST_BITS} are reckoned")


def is_shape(shape: object, axes: int | None = None) -> bool:
    return (
        type(shape) is tuple
        and all(type(n) is int and n > 0 for n in shape)
        and axes in (None, len(shape))
    )


def check_layer(layer: Layer, given: tuple[int, ...]) -> None:
    """Refuse a layer that cannot be run exactly on a shape, and say why."""
    name, kind, shape = f"layer {layer.name!r}", layer.kind, layer.shape
    if type(layer.name) is not str or type(kind) is not str or kind not in KINDS:
        raise Refused(f"{name} is of unknown kind {kind!r}")
    used, axes = KINDS[kind]
    for field, usual in Layer._field_defaults.items():
        value = getattr(layer, field)
        if field not in used and (type(value) is not type(usual) or value != usual):
            raise Refused(f"{name} has a {field}, which a {kind} does not use")
    if type(layer.slope) not in (int, float) or not math.isfinite(layer.slope):
        raise Refused(f"{name} has no finite slope, but {layer.slope!r:.80}")
    if type(layer.padding) is not str or layer.padding not in ("valid", "same"):
        raise Refused(f"{name} has padding {layer.padding!r}, not 'valid' or 'same'")
    if not is_shape(layer.window, 2) or not is_shape(layer.strides, 2):
        raise Refused(f"{name} needs two positive integers as window and as strides")
    if not is_shape(shape, axes):
        raise Refused(f"{name} has no shape of positive integers, but {shape!r:.80}")
    if axes not in (None, len(given)):
        raise Refused(f"{name} takes another shape than {given}")
    wanted = given
    if kind == "reshape":
        wanted = shape if math.prod(shape) == math.prod(given) else None
    elif kind != "relu":
        outer = layer.window if axes == 3 else ()
        if kind != "average":
            check_array(layer, "kernel", (*outer, given[-1], shape[-1]))
            check_array(layer, "bias", shape[-1:])
        if any(window > 2 * size for window, size in zip(outer, given, strict=False)):
            raise Refused(f"{name} has a window {outer} beyond inputs {given}")
        counts = [count for count, *_ in windows(layer, given)] if axes == 3 else []
        wanted = (*counts, given[-1] if kind == "average" else shape[-1])
    if shape != wanted:
        raise Refused(f"{name} takes {given} and does not give shape {shape}")


def check_array(layer: Layer, field: str, shape: tuple[int, ...]) -> None:
    """Refuse weights that are no finite floats, or not of the shape needed."""
    array = getattr(layer, field)
    if type(array) is not np.ndarray or array.dtype.name not in FLOATS:
        raise Refused(
            f"layer {layer.name!r} has no {field} of floats: it must be a NumPy array "
            f"of {' or '.join(FLOATS)}"
        )
    if array.shape != shape:
        raise Refused(
            f"layer {layer.name!r} has a {field} of shape {array.shape}, not {shape}"
        )
    if not np.isfinite(array).all():
        raise Refused(f"layer {layer.name!r} has a {field} that is not finite")


def exact_values(
    layers: Sequence[Layer], pixels: Sequence[Fraction], shape: tuple[int, ...]
) -> tuple[Fraction, ...]:
    """Run a network without rounding.

    All values of a layer are kept as Python integers above one common denominator.
    """
    below = math.lcm(*(pixel.denominator for pixel in pixels))
    above = [pixel.numerator * (below // pixel.denominator) for pixel in pixels]
    values = np.array(above, dtype=object).reshape(shape)
    for layer in layers:
        values, below = step(layer, values, below)
    return tuple(Fraction(int(value), below) for value in values.ravel())


def step(layer: Layer, values: np.ndarray, below: int) -> tuple[np.ndarray, int]:
    """Apply one layer to integers above a denominator."""
    if layer.kind == "reshape":
        return values.reshape(layer.shape), below
    if layer.kind == "relu":
        p, q = float(layer.slope).as_integer_ratio()
        return np.where(values > 0, values * q, values * p), below * q
    if layer.kind == "average":
        total = sum(patches(values, layer))
        count = sum(patches(np.ones_like(values), layer))  # fewer at a padded edge
        common = math.lcm(*count.ravel())
        return total * (common // count), below * common
    (kernel, bias), scale = as_integers(layer.kernel, layer.bias)
    if layer.kind == "dense":
        return values @ kernel + bias * below, below * scale
    weights = kernel.reshape(-1, *kernel.shape[2:])
    total = sum(p @ w for p, w in zip(patches(values, layer), weights, strict=True))
    return total + bias * below, below * scale


def windows(layer: Layer, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Return places of the window, and margins before and after, for both axes."""
    found = []
    for size, window, stride in zip(shape, layer.window, layer.strides, strict=False):
        missing = 0
        if layer.padding == "same":
            missing = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
        count = (size + missing - window) // stride + 1
        found.append((count, missing // 2, missing - missing // 2))
    return found


def patches(values: np.ndarray, layer: Layer) -> list[np.ndarray]:
    """Return what each place of a sliding window sees, an array for each place."""
    (rows, top, bottom), (columns, left, right) = windows(layer, values.shape)
    height, width, channels = values.shape
    # np.pad would put in numpy's own zeros, which cannot grow without end.
    padded = np.zeros((top + height + bottom, left + width + right, channels), object)
    padded[top : top + height, left : left + width] = values
    down, across = layer.strides
    return [
        padded[i : i + rows * down : down, j : j + columns * across : across][
            :rows, :columns
        ]
        for i in range(layer.window[0])
        for j in range(layer.window[1])
    ]


def as_integers(*arrays: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Write arrays of floats as integers above one common denominator."""
    ratios = [[v.as_integer_ratio() for v in a.ravel().tolist()] for a in arrays]
    scale = max(q for pairs in ratios for _, q in pairs)  # all are powers of two
    return [
        np.array([p * (scale // q) for p, q in pairs], object).reshape(array.shape)
        for array, pairs in zip(arrays, ratios, strict=True)
    ], scale


def fingerprint(layers: Sequence[Layer]) -> str:
    """Return a sha256 over every setting and every weight of a network."""
    digest = hashlib.sha256()
    for layer in layers:
        settings = layer._replace(kernel=None, bias=None, shape=tuple(layer.shape))
        digest.update(repr(tuple(settings)).encode())
        for array in (layer.kernel, layer.bias):
            digest.update(b"" if array is None else array.astype("<f8").tobytes())
    return digest.hexdigest()


def save(certificate: Certificate, path: str | Path) -> None:
    """Write a certificate as JSON; fractions are hexadecimal, such as "3/1f"."""
    content = {"format": FORMAT} | asdict(certificate)
    for name in ("values", "first", "second"):  # integers would stay decimal
        content[name] = tuple(map(_as_text, content[name]))
    for name in ("low", "high"):
        content[name] = _as_text(content[name])
    Path(path).write_text(json.dumps(content, indent=0) + "\n")


def load(path: str | Path) -> Certificate:
    """Read a certificate; a ValueError says why a file does not hold an honest one."""
    try:
        with open(path, "rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        content = json.loads(text)
        if (version := content.pop("format")) != FORMAT:
            raise ValueError(f"its format is {version!r}, not {FORMAT!r}")
        for name in ("values", "first", "second"):
            content[name] = tuple(map(_as_fraction, content[name]))
        for name in ("low", "high"):
            content[name] = _as_fraction(content[name])
        content["shape"] = tuple(content["shape"])
        return Certificate(**content)
    except WRONG as error:
        raise ValueError(
            f"{path} does not hold a certificate, or only a part of one: {error!r:.300}"
        ) from error


def _as_text(number: int | Fraction) -> str:
    if (fraction := in_lowest_terms(number)) is None:
        raise ValueError(f"a certificate holds fractions, not {number!r}")
    # Hexadecimal: Python refuses to read decimal numbers of many thousand digits.
    return f"{fraction.numerator:x}/{fraction.denominator:x}"


def _as_fraction(text: str) -> Fraction:
    above, below = text.split("/")
    if max(len(above), len(below)) > MOST_BITS // 4:
        raise ValueError(f"one of its numbers takes more than {MOST_BITS:,} bits")
    return Fraction(int(above, 16), int(below, 16))
