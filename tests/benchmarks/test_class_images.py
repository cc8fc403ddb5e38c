"""What a picture of every class costs, and whether it is one, beside MIFace.

MIFace (Fredrikson et al. 2015) is the model inversion of the adversarial-robustness-
toolbox, which takes one image at a time. It is no part of this project's environment;
``make bench`` compares with it where it is installed.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

import netinvert as ni
from netinvert.objectives import cross_entropy, total_variation
from tests.benchmarks.test_speed import seconds

with contextlib.redirect_stderr(io.StringIO()):  # it misses PyTorch, aloud
    pytest.importorskip(
        "art",
        reason="MIFace is not here to compare with; to have it: "
        ".venv/bin/python -m pip install adversarial-robustness-toolbox",
    )
    from art.attacks.inference.model_inversion import MIFace
    from art.estimators.classification import TensorFlowV2Classifier

CLASSES = np.arange(10)
MIFACE_STEPS = 1000  # a tenth of its default, which changes its pictures no more


def evaluated(images) -> float:
    """Share of the images in which an independent network sees the wanted class."""
    evaluator = ni.pretrained("evaluator")
    return float(ni.metrics.accuracy(evaluator, images, CLASSES).mean())


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_pictures_of_all_classes_cost_a_fraction_of_miface(name, capsys):
    (x_train, _), _ = ni.load_mnist()
    model = ni.pretrained(name)
    mean = np.repeat(x_train.mean(axis=0, keepdims=True), 10, axis=0)
    attack = MIFace(
        TensorFlowV2Classifier(
            model, nb_classes=10, input_shape=(28, 28, 1), clip_values=(0.0, 1.0)
        ),
        max_iter=MIFACE_STEPS,
        verbose=False,
    )
    found = {}
    slow = seconds(lambda: found.update(miface=attack.infer(mean, CLASSES)))

    forward = ni.tap(model, "logits")
    method = ni.GradientInversion(cross_entropy + 0.3 * total_variation, steps=256)
    method.fit(forward, x_train)
    # The first call, which traces and compiles, is the only one.
    fast = seconds(lambda: found.update(ours=ni.invert(forward, np.eye(10), method)))
    ours, theirs = evaluated(found["ours"].inputs), evaluated(found["miface"])
    with capsys.disabled():
        print(f"\n{name}, ten class images, first call included: MIFace {slow:.1f} s,")
        print(f"netinvert {fast:.2f} s, ratio {slow / fast:,.0f}; the evaluator names")
        print(f"the class in {theirs:.1f} of MIFace's, in {ours:.1f} of netinvert's")
    assert slow / fast >= 50
    assert ours > theirs
