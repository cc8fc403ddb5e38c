"""Can a neural network be inverted? Methods, judge and certificates for the book."""

import importlib

from netinvert import baselines, certificates, metrics, objectives, plots, widgets
from netinvert.autoencoder import AutoencoderInversion
from netinvert.data import load_fashion_items, load_fashion_mnist, load_mnist
from netinvert.gradient import GradientInversion
from netinvert.inverse_network import InverseNetwork
from netinvert.inversion import Inversion, Method, invert
from netinvert.levenberg_marquardt import LevenbergMarquardt
from netinvert.models import load_model, pretrained, tap

__all__ = [
    "AutoencoderInversion",
    "GradientInversion",
    "InverseNetwork",
    "Inversion",
    "LevenbergMarquardt",
    "Method",
    "baselines",
    "census",
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
    if name in ("census", "fibers"):
        return importlib.import_module(f"netinvert.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
