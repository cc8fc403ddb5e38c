"""What the chapter on autoencoders says in words, beside the numbers it prints."""

from __future__ import annotations

import numpy as np
import pytest

import netinvert as ni
from netinvert.methods.autoencoder import digits_autoencoder

psnr = ni.metrics.psnr


@pytest.fixture(scope="module")
def digits():
    return ni.load_mnist()[1][0][:64]


@pytest.fixture(scope="module")
def forward():
    return ni.tap(ni.pretrained("mlp"), "logits")


@pytest.fixture(scope="module")
def method(forward):
    (x_train, _), _ = ni.load_mnist()
    method = ni.AutoencoderInversion(digits_autoencoder())
    return method.fit(forward, x_train[:1000])


@pytest.fixture(scope="module")
def estimate(method, forward, digits):
    guess = method.regression_(forward(digits).numpy())
    return method.decoder_(method.center_ + method.spread_ * guess).numpy()


def test_the_search_from_the_middle_was_cut_off_and_not_stuck(method, forward, digits):
    y, fitted, level = forward(digits).numpy(), {}, {}
    for method.start, method.steps in [("mean", 60), ("mean", 1000), ("estimate", 60)]:
        result, key = ni.invert(forward, y, method), (method.start, method.steps)
        fitted[key] = np.mean(result.residual < 1e-3 * (y**2).mean(axis=1))
        level[key] = psnr(digits, result.inputs).mean()
    assert fitted["mean", 60] < 0.1 and fitted["mean", 1000] > 0.85
    assert level["estimate", 60] > level["mean", 1000] + 1


def test_most_of_the_lead_over_pixels_was_the_start(method, forward, digits, estimate):
    (x_train, _), _ = ni.load_mnist()
    y, level = forward(digits).numpy(), {}
    method.start, method.steps = "estimate", 300
    pixels = ni.GradientInversion(steps=300).fit(forward, x_train)
    level["mean"] = psnr(digits, ni.invert(forward, y, pixels).inputs)
    bare = ni.objectives.squared_error
    pixels = ni.GradientInversion(bare, start=estimate, steps=300)
    level["estimate"] = psnr(digits, ni.invert(forward, y, pixels).inputs)
    code = psnr(digits, ni.invert(forward, y, method).inputs)
    lead = {start: (code - other).mean() for start, other in level.items()}
    assert 0.4 < lead["estimate"] < 1.6 < 2.5 < lead["mean"]


def test_the_decoder_can_draw_mirrored_digits_and_ten_logits_do_not_ask(
    method, forward, digits
):
    mirrored, autoencoder = digits[:, :, ::-1], digits_autoencoder()
    method.start, method.steps = "estimate", 300
    found = ni.invert(forward, forward(mirrored).numpy(), method).inputs
    copied = psnr(mirrored, autoencoder(mirrored).numpy()).mean()
    assert copied > psnr(mirrored, found).mean() + 3
    assert psnr(1 - digits, autoencoder(1 - digits).numpy()).mean() < 5
