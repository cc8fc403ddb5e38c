"""Can a neural network be inverted? Methods, judge and certificates for the book."""

import importlib
import os
import sys


def _import_keras_quietly() -> None:
    """Import Keras without the log of TensorFlow's start, a pink box in a notebook."""
    # The level is not enough: some lines are written before TensorFlow reads it, to
    # the file descriptor itself. Who sets another level beforehand sees everything.
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules or level != "3":
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        importlib.import_module("keras")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


_import_keras_quietly()

from netinvert import baselines, certificates, metrics, objectives, plots, widgets
from netinvert.data import load_fashion_items, load_fashion_mnist, load_mnist
from netinvert.forward import tap
from netinvert.inversion import Inversion, Method, invert
from netinvert.methods.autoencoder import AutoencoderInversion
from netinvert.methods.gradient import GradientInversion
from netinvert.methods.inverse_network import InverseNetwork
from netinvert.methods.levenberg_marquardt import LevenbergMarquardt
from netinvert.models import load_model, pretrained

# A second-order search in a code begins as this method does; here alone they meet.
LevenbergMarquardt.code_search = AutoencoderInversion

__all__ = [
    "AutoencoderInversion", "GradientInversion", "InverseNetwork", "Inversion",
    "LevenbergMarquardt", "Method", "baselines", "certificates", "fibers", "invert",
    "load_fashion_items", "load_fashion_mnist", "load_mnist", "load_model", "metrics",
    "objectives", "plots", "pretrained", "tap", "widgets",
]  # fmt: skip


def __getattr__(name: str):
    # Solvers and exact arithmetic take a while to import, and one chapter needs them.
    if name == "fibers":
        return importlib.import_module("netinvert.fibers")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
