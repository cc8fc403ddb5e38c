"""Can a neural network be inverted? Methods, judge and certificates for the book."""

from netinvert import (
    baselines,
    census,
    certificates,
    fibers,
    metrics,
    objectives,
    plots,
    widgets,
)
from netinvert.autoencoder import AutoencoderInversion
from netinvert.data import load_fashion_mnist, load_mnist
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
