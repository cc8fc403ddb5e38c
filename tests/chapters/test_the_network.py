"""What chapter 1 says in words and does not print."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import netinvert as ni

SIDE, C1, C2 = 7, 0.01**2, 0.03**2


def windows(images):
    return sliding_window_view(images[..., 0], (SIDE, SIDE), axis=(1, 2))


def test_half_of_the_likeness_of_two_digits_is_blank_paper():
    digits = ni.load_mnist()[1][0][:200].astype("float64")
    other = np.roll(digits, 1, axis=0)
    a, b = windows(digits), windows(other)
    inside = -2, -1
    mean_a, mean_b = a.mean(inside), b.mean(inside)
    spread = (a * b).mean(inside) - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + C1) * (2 * spread + C2)
    ssim /= mean_a**2 + mean_b**2 + C1
    ssim /= a.var(inside) + b.var(inside) + C2
    blank = (a.max(inside) == 0) & (b.max(inside) == 0)
    assert abs(ssim.mean() - ni.metrics.ssim(digits, other).mean()) < 0.01
    assert abs(ssim.mean() - 0.2) < 0.05
    assert 0.4 < (ssim * blank).sum() / ssim.sum() < 0.6
