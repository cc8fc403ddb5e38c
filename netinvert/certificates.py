"""Proofs that two different inputs have exactly the same output, and their check.

:func:`verify` runs the network on both inputs of a certificate in integers, without
any rounding. It shares no code with :mod:`netinvert.fibers`, which finds the inputs,
and needs no TensorFlow: this file runs alone, beside numpy.

What is proved is a statement about the function that the weights define on real
numbers: floating-point weights are fractions with a power of two below the line, and
so is the slope of a leaky ReLU, as the float64 that its setting holds. What a device
computes is rounded, so the two outputs that it prints may differ in their last digits.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

FORMAT = "netinvert certificate, version 1"
# What a certificate may need, and is read in seconds. One of 512 equations takes
# 18,000 bits and 5 MB.
MOST_BITS = 2**17  # of a numerator or denominator, also a common one
MOST_BYTES = 2**25  # of a file
POINTS, ENDS = ("values", "first", "second"), ("low", "high")  # fields of fractions
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
        return np.array([self.first, self.second], "float64").reshape(2, *self.shape)

    def __repr__(self) -> str:
        return f"<Certificate of two inputs {self.shape} equal at {self.layer!r}>"


def verify(certificate: Certificate, layers: Sequence[Layer]) -> str:
    """Check a certificate in exact arithmetic; return what was proved, in words.

    The network is a list of Layer, from :func:`netinvert.fibers.layers_of` or written
    by hand; anything else is a ValueError. A claim is Refused, with the reason, if it
    is false, about another network, larger than what is checked here, about a layer
    that cannot be run exactly, or in other numbers than Python's ``int`` and
    ``Fraction``, which may overflow.
    """
    layers = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    for one in layers:
        if type(certificate) is not Certificate or type(one) is not Layer:
            raise ValueError(
                "verify needs a Certificate and a list of Layer, by hand or from "
                "netinvert.fibers.layers_of(model); got "
                f"{type(certificate).__name__} and {type(one).__name__}"
            )
    claim = checked(certificate)
    names = [layer.name for layer in layers]
    require(claim.layer in names, f"the network has no layer {claim.layer!r:.80}")
    layers = layers[: names.index(claim.layer) + 1]
    given = claim.shape
    for layer in layers:
        check_layer(layer, given)
        given = layer.shape
    same = fingerprint(layers) == claim.network
    require(same, "the certificate is about a network with other weights or layers")
    require(claim.first != claim.second, "the two inputs are the same")
    for name in ("first", "second"):
        values = exact_values(layers, getattr(claim, name), claim.shape)
        wrong = f"the {name} input has other values at {claim.layer!r}"
        require(values == claim.values, wrong)
    count = sum(a != b for a, b in zip(claim.first, claim.second, strict=True))
    return (
        f"Proved: two inputs in [{claim.low}, {claim.high}] that differ in {count} of "
        f"{len(claim.first)} numbers have the same {len(claim.values)} values at "
        f"{claim.layer!r}, exactly."
    )


def require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise Refused(otherwise)


def checked(certificate: Certificate) -> Certificate:
    """Return a certificate in lowest terms; refuse fields that prove nothing."""
    shape, fields = certificate.shape, {}
    for name in ("layer", "network"):  # another class may equal whatever it likes
        kind = type(getattr(certificate, name))
        require(kind is str, f"{name} must be a str, not {kind.__name__}")
    wrong = f"{shape!r:.80} is no shape: it must be a tuple of positive integers"
    require(is_shape(shape), wrong)
    for name in POINTS:
        numbers = getattr(certificate, name)  # a list never equals a tuple
        require(type(numbers) is tuple, f"{name} is no tuple of fractions")
        fields[name] = numbers = tuple(map(in_lowest_terms, numbers))
        below = 1
        for number in numbers:
            below = math.lcm(below, number.denominator)
            bits = max(below.bit_length(), number.numerator.bit_length())
            long = f"the common denominator of {name} takes {bits} bits"
            require(bits <= MOST_BITS, f"{long}, not {MOST_BITS}")
    low, high = (in_lowest_terms(getattr(certificate, end)) for end in ENDS)
    for name in ("first", "second"):
        fits = len(fields[name]) == math.prod(shape)
        require(fits, f"the {name} input has not the shape {shape}")
        inside = all(low <= pixel <= high for pixel in fields[name])
        require(inside, f"the {name} input leaves the box")
    return replace(certificate, low=low, high=high, **fields)


def in_lowest_terms(number: object) -> Fraction:
    """Return a number made of Python integers only; NumPy's would overflow."""
    exact = type(number) in (int, Fraction)
    parts = (number.numerator, number.denominator) if exact else ()
    exact = exact and {*map(type, parts)} == {int} and number.denominator > 0
    kind = type(number).__name__  # a long number cannot be shown
    require(exact, f"a number is no fraction of Python's integers, but a {kind}")
    return Fraction(*parts)


def is_shape(shape: object, axes: int | None = None) -> bool:
    short = type(shape) is tuple and len(shape) <= 32  # as NumPy's arrays were
    whole = short and all(type(n) is int and 0 < n < 2**31 for n in shape)
    return whole and axes in (None, len(shape))


def check_layer(layer: Layer, given: tuple[int, ...]) -> None:
    """Refuse a layer that cannot be run exactly on a shape, and say why."""
    name, kind, shape = f"layer {layer.name!r}", layer.kind, layer.shape
    known = type(layer.name) is str and type(kind) is str and kind in KINDS
    require(known, f"{name} is of unknown kind {kind!r}")
    used, axes = KINDS[kind]
    for field, usual in Layer._field_defaults.items():
        value = getattr(layer, field)
        idle = type(value) is type(usual) and value == usual
        require(field in used or idle, f"{name} has a {field}, which a {kind} has not")
    slope, padding = layer.slope, layer.padding
    finite = type(slope) in (int, float) and abs(slope) < 1e308
    require(finite, f"{name} has no finite slope, but {slope!r:.80}")
    known = type(padding) is str and padding in ("valid", "same")
    require(known, f"{name} has padding {padding!r}, not 'valid' or 'same'")
    whole = is_shape(layer.window, 2) and is_shape(layer.strides, 2)
    wrong = f"{name} needs positive integers: two as window and as strides, and a shape"
    require(whole and is_shape(shape, axes), wrong)
    require(axes in (None, len(given)), f"{name} takes another shape than {given}")
    outer, counts, wanted = (), [], given
    if axes == 3:
        outer, counts = layer.window, [count for count, *_ in windows(layer, given)]
        fits = all(w <= 2 * size for w, size in zip(outer, given, strict=False))
        require(fits, f"{name} has a window {outer} beyond inputs {given}")
        wanted = (*counts, given[-1])
    if "kernel" in used:
        check_array(layer, "kernel", (*outer, given[-1], shape[-1]))
        check_array(layer, "bias", shape[-1:])
        wanted = (*counts, shape[-1])
    if kind == "reshape" and math.prod(shape) == math.prod(given):
        wanted = shape
    require(shape == wanted, f"{name} takes {given} and does not give shape {shape}")


def check_array(layer: Layer, field: str, shape: tuple[int, ...]) -> None:
    """Refuse weights that are no finite floats, or not of the shape needed."""
    array, name = getattr(layer, field), f"layer {layer.name!r}"
    floats = type(array) is np.ndarray and array.dtype.name in FLOATS
    wanted = f"it must be a NumPy array of {' or '.join(FLOATS)}"
    require(floats, f"{name} has no {field} of floats: {wanted}")
    wrong = f"{name} has a {field} of shape {array.shape}, not {shape}"
    require(array.shape == shape, wrong)
    require(np.isfinite(array).all(), f"{name} has a {field} that is not finite")


def exact_values(layers: Sequence[Layer], pixels: Sequence, shape: tuple) -> tuple:
    """Run a network without rounding: on integers above one common denominator."""
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
        p, q = layer.slope.as_integer_ratio()
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
    (_, top, bottom), (_, left, right) = windows(layer, values.shape)
    height, width, channels = values.shape
    # np.pad would put in numpy's own zeros, which cannot grow without end.
    padded = np.zeros((top + height + bottom, left + width + right, channels), object)
    padded[top : top + height, left : left + width] = values
    seen = np.lib.stride_tricks.sliding_window_view(padded, layer.window, (0, 1))
    seen = seen[:: layer.strides[0], :: layer.strides[1]]
    return [seen[..., i, j] for i, j in np.ndindex(*layer.window)]


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
    content = {"format": FORMAT} | vars(certificate)
    content |= {name: [*map(_as_text, content[name])] for name in POINTS}
    content |= {name: _as_text(content[name]) for name in ENDS}
    Path(path).write_text(json.dumps(content, indent=0) + "\n")


def load(path: str | Path) -> Certificate:
    """Read a certificate; a ValueError says why a file does not hold an honest one."""
    with open(path, "rb") as file:
        text = file.read(MOST_BYTES + 1)
    try:
        if len(text) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        content = json.loads(text)
        if (version := content.pop("format")) != FORMAT:
            raise ValueError(f"its format is {version!r}, not {FORMAT!r}")
        content |= {name: tuple(map(_as_fraction, content[name])) for name in POINTS}
        content |= {name: _as_fraction(content[name]) for name in ENDS}
        return Certificate(**content | {"shape": tuple(content["shape"])})
    except Exception as error:  # whatever a damaged or a hostile file can cause
        raise ValueError(
            f"{path} does not hold a certificate, or only a part of one: {error!r:.300}"
        ) from error


def _as_text(number: int | Fraction) -> str:
    number = in_lowest_terms(number)
    # Hexadecimal: Python refuses to read decimal numbers of many thousand digits.
    return f"{number.numerator:x}/{number.denominator:x}"


def _as_fraction(text: str) -> Fraction:
    above, below = text.split("/")
    if max(len(above), len(below)) > MOST_BITS // 4:
        raise ValueError(f"one of its numbers takes more than {MOST_BITS:,} bits")
    return Fraction(int(above, 16), int(below, 16))
