"""Can a neural network be inverted? Methods, judge and certificates for the book."""

import importlib

from netinvert import baselines, certificates, metrics, objectives, plots, widgets
from netinvert.data import load_fashion_items, load_fashion_mnist, load_mnist
from netinvert.forward import tap
from netinvert.inversion import Inversion, Method, invert
from netinvert.methods.autoencoder import AutoencoderInversion
from netinvert.methods.gradient import GradientInversion
from netinvert.methods.inverse_network import InverseNetwork
from netinvert.methods.levenberg_marquardt import LevenbergMarquardt
from netinvert.models import load_model, pretrained

__all__ = [
    "AutoencoderInversion",
    "GradientInversion",
    "InverseNetwork",
    "Inversion",
    "LevenbergMarquardt",
    "Method",
    "baselines",
    "certificates",
    "fibers",
    "invert",
    "load_fashion_items",
    "load_fashion_mnist",
    "load_mnist",
    "load_model",
    "metrics",
    "objectives",
    "plots",
    "pretrained",
    "tap",
    "widgets",
]


def __getattr__(name: str):
    # Solvers and exact arithmetic take a while to import, and one chapter needs them.
    if name == "fibers":
        return importlib.import_module("netinvert.fibers")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
