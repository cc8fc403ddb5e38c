"""What the chapter on inverse networks says in words, beside the numbers it prints."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import netinvert as ni

psnr, mse = ni.metrics.psnr, ni.metrics.mse
SMALL = {"hidden": (128,), "epochs": 2, "learning_rate": 0.02, "augment": False}


@pytest.fixture(scope="module")
def sets():
    (x_train, _), (x_test, y_test) = ni.load_mnist()
    return x_train[:1500], x_test[:500], y_test[:500]


@pytest.fixture(scope="module")
def model():
    return ni.pretrained("mlp")


def learned(seen, pairs):
    """The chapter's snippet, trained on what is seen."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    layers = [dense(64, "relu"), dense(128, "relu"), dense(784)]
    inverse = keras.Sequential([keras.Input((10,)), *layers])
    inverse.compile(keras.optimizers.Adam(0.005), loss="mse")
    pixels = pairs.reshape(-1, 784)
    inverse.fit(seen, pixels, epochs=6, batch_size=100, verbose=0)
    return inverse


def drawn_by(inverse, wanted):
    return np.clip(inverse(wanted), 0, 1).reshape(-1, 28, 28, 1)


def logarithm(values, least=1e-30):
    return np.log(np.maximum(values, least))


def standardized(known, new):
    return (known - known.mean(0)) / known.std(0), (new - known.mean(0)) / known.std(0)


def test_neither_logarithm_nor_scale_alone_brings_back_what_both_do(sets, model):
    pairs, digits, _ = sets
    known, asked = np.array(model(pairs)), np.array(model(digits))
    logs = logarithm(known), logarithm(asked)
    kinds = {"bare": (known, asked), "scale": standardized(known, asked), "logs": logs}
    kinds |= {"both": standardized(*logs), "tenth": [v / 10 for v in logs]}
    kinds["root"] = standardized(known**0.125, asked**0.125)
    level = {
        kind: psnr(digits, drawn_by(learned(seen, pairs), wanted)).mean()
        for kind, (seen, wanted) in kinds.items()
    }
    assert max(level["scale"], level["logs"]) < level["bare"] + 0.1
    assert min(level["both"], level["tenth"]) > level["bare"] + 0.7
    assert level["root"] == pytest.approx(14.0, abs=0.1)


def test_what_breaks_on_rounded_targets_was_the_number_for_a_zero(sets, model):
    pairs, digits, _ = sets
    known, asked = np.array(model(pairs)), np.round(np.array(model(digits)), 7)
    logs, inverse = logarithm(known), None
    for least, low, high in [(1e-30, 9, 11), (5e-8, 13.5, 14.1)]:
        seen, wanted = standardized(logs, logarithm(asked, least))
        inverse = inverse or learned(seen, pairs)
        assert low < psnr(digits, drawn_by(inverse, wanted)).mean() < high


def test_the_ruler_and_not_the_tap_is_blind_at_the_softmax(sets, model):
    pairs, digits, _ = sets
    method = ni.InverseNetwork(logarithm=False, **SMALL).fit(model, pairs)
    result = ni.invert(model, np.array(model(digits)), method)
    wrong = mse(digits, result.inputs).argsort().argsort()

    def related(targets, outputs):
        ranks = mse(targets, outputs).argsort().argsort()
        return np.corrcoef(ranks, wrong)[0, 1]

    both = result.targets, result.outputs
    assert related(*both) < 0.15 < 0.3 < related(*map(logarithm, both))


def answers_of(method, forward, pairs, digits):
    targets = np.array(forward(digits))
    return ni.invert(forward, targets, method.fit(forward, pairs)).inputs


def test_trainings_end_in_different_places_and_it_costs_next_to_nothing(sets, model):
    (pairs, digits, _), forward, agree = sets, ni.tap(model, "logits"), []
    linear = {"hidden": (), "epochs": 3, "learning_rate": 0.2, "augment": False}
    for settings in (SMALL, linear):
        found = [
            answers_of(ni.InverseNetwork(seed=seed, **settings), forward, pairs, digits)
            for seed in range(3)
        ]
        assert np.ptp([psnr(digits, one).mean() for one in found]) < 0.1
        agree.append(psnr(found[0], found[1]).mean())
    assert agree == pytest.approx([28.6, 33.6], abs=0.5)


def test_pairs_that_are_new_to_f_gain_nothing(sets, model):
    (pairs, digits, _), forward = sets, ni.tap(model, "logits")
    _, (x_test, _) = ni.load_mnist()
    level = [
        psnr(digits, answers_of(ni.InverseNetwork(**SMALL), forward, some, digits))
        for some in (pairs, x_test[500:2000])
    ]
    assert abs((level[1] - level[0]).mean()) < 0.1
