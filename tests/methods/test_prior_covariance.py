"""What a short step is, and what a polished picture gains from it."""

import keras
import numpy as np
import pytest

import netinvert as ni
from netinvert import metrics
from netinvert.methods.inverse_network import digits_inverse
from netinvert.methods.levenberg_marquardt import LevenbergMarquardt
from netinvert.methods.prior_covariance import (
    LEAST_FLOOR,
    ErrorCovariance,
    Identity,
    InputCovariance,
    Spread,
)


class Answer:
    """A start that gives the same answer to every target."""

    def __init__(self, answer):
        self.answer = np.asarray(answer, "float32")

    def fit(self, forward, inputs):
        return self

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        return np.repeat(self.answer[None], len(targets), axis=0), {}


def matrix(spread: Spread) -> np.ndarray:
    """M, written out, for a spread that is the same everywhere."""
    size = len(spread.factor)
    middle = spread.factor @ spread.factor.T + spread.floor * np.eye(size)
    scale = np.ones(size) if spread.scale is None else spread.scale
    return scale[:, None] * middle * scale


@pytest.fixture(scope="module")
def gaussian():
    """Draws from a normal distribution, and a linear network of two outputs."""
    random = np.random.default_rng(0)
    mixture = random.normal(size=(6, 6)) * np.array([5, 1, 1, 1, 0.1, 2])[:, None]
    inputs = (3 + random.normal(size=(4000, 6)) @ mixture.T).astype("float32")
    forward = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    forward.set_weights([random.normal(size=(6, 2)), np.array([1.0, -1.0])])
    return forward, inputs


@pytest.mark.parametrize("covariance", ["inputs", "errors"])
def test_on_a_linear_gaussian_problem_the_answer_is_the_posterior_mean(
    gaussian, covariance, monkeypatch
):
    monkeypatch.setattr("netinvert.methods.prior_covariance.KEPT_VARIANCE", 1.0)
    forward, inputs = gaussian
    middle, expected = inputs.mean(axis=0), np.cov(inputs.T)
    method = LevenbergMarquardt(start=Answer(middle), covariance=covariance)
    method.fit(forward, inputs)
    spread = method.covariance_.at(middle[None], None)
    np.testing.assert_allclose(matrix(spread), expected, rtol=0.01, atol=0.01)
    targets = forward.predict(inputs[:20], verbose=0)
    found = ni.invert(forward, targets, method, bounds=None).inputs
    weights = forward.get_weights()[0].T
    missing = targets - forward.predict(middle[None], verbose=0)
    gain = expected @ weights.T @ np.linalg.inv(weights @ expected @ weights.T)
    np.testing.assert_allclose(found, middle + missing @ gain.T, rtol=0.02, atol=0.02)


def images(random, count=500):
    """Pictures (count, 4, 4, 1): noise in the upper or lower half, the other black."""
    pictures = random.uniform(size=(count, 4, 4, 1)).astype("float32")
    pictures[::2, :2] = pictures[1::2, 2:] = 0
    return pictures


class GreyHalf:
    """A start that knows which half is black, and draws grey in the other one."""

    def fit(self, forward, inputs):
        return self

    def solve(self, forward, targets, *, bounds, seed, input_shape):
        upper = (targets[:, :1] > 0) == (np.arange(4) < 2)
        return np.where(upper, 0.5, 0)[:, :, None, None] + np.zeros((4, 1)), {}


def test_no_direction_is_forbidden_even_where_inputs_vary_in_one_alone():
    inputs = np.outer(np.linspace(-1, 1, 50), [3.0, 4.0, 0.0]).astype("float32")
    spread = InputCovariance().fit(None, inputs, None).at(inputs, None)
    variances = np.linalg.eigvalsh(matrix(spread))
    np.testing.assert_allclose(variances[:2] / variances[2], LEAST_FLOOR, rtol=0.01)


def test_a_background_that_the_start_is_sure_of_does_not_move():
    random = np.random.default_rng(1)
    pictures = images(random)
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    forward = keras.Sequential(layers)
    weights = random.normal(size=(16, 3))
    weights[:, 0] = [1] * 8 + [-1] * 8  # tells which half is black
    forward.layers[-1].set_weights([weights, np.zeros(3)])
    targets, moved = forward.predict(pictures[:50], verbose=0), {}
    start = ni.invert(forward, targets, GreyHalf()).inputs
    for covariance in ("identity", "errors"):
        method = LevenbergMarquardt(start=GreyHalf(), covariance=covariance)
        result = ni.invert(forward, targets, method.fit(forward, pictures))
        assert result.residual.max() < 1e-6
        moved[covariance] = np.abs(result.inputs - start)
    black = start == 0
    assert moved["identity"][black].mean() > 0.02
    assert moved["errors"][black].mean() < 0.002
    assert moved["errors"][~black].mean() > 0.05


def test_the_scale_of_the_pixels_means_nothing():
    random = np.random.default_rng(2)
    pictures, drawn = images(random), images(random, 1)
    forward = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    unit = ErrorCovariance().fit(forward, pictures, Answer(drawn[0]))
    bytes_ = ErrorCovariance().fit(forward, 255 * pictures, Answer(255 * drawn[0]))
    ours, theirs = unit.at(drawn, None), bytes_.at(255 * drawn, None)
    np.testing.assert_allclose(255 * ours.scale, theirs.scale, rtol=1e-3)
    np.testing.assert_allclose(ours.floor, theirs.floor, rtol=1e-3)


def test_a_start_that_makes_no_errors_leaves_a_usable_covariance(gaussian):
    forward, inputs = gaussian
    same = np.repeat(inputs[:1], 20, axis=0)
    spread = ErrorCovariance().fit(forward, same, Answer(inputs[0])).at(same, None)
    assert np.isfinite(matrix(spread)).all() and (np.diag(matrix(spread)) > 0).all()


@pytest.fixture(scope="module")
def polished():
    """100 test digits from the first hidden layer, polished in two covariances."""
    (x_train, _), (x_test, _) = ni.load_mnist()
    forward = ni.tap(ni.pretrained("mlp"), "hidden_1")
    start, truth, learned = digits_inverse(), x_test[:100], x_train[:2000]
    targets = forward.predict(truth, verbose=0)
    found = {"start": ni.invert(forward, targets, start)}
    for covariance in (InputCovariance(), ErrorCovariance()):
        method = LevenbergMarquardt(
            start, covariance.fit(forward, learned, start), steps=8
        )
        found[type(covariance).__name__] = ni.invert(forward, targets, method)
    return {
        name: (
            metrics.psnr(truth, result.inputs).mean(),
            metrics.ssim(truth, result.inputs).mean(),
            np.median(result.residual),
        )
        for name, result in found.items()
    }


def test_the_errors_of_the_start_gain_signal_without_losing_structure(polished):
    before, after = polished["start"], polished["ErrorCovariance"]
    assert after[0] > before[0] + 3
    assert after[1] > before[1] + 0.02
    assert after[2] < 1e-2 * before[2]


def test_the_covariance_of_the_inputs_puts_noise_on_the_background(polished):
    assert polished["InputCovariance"][1] < polished["ErrorCovariance"][1] - 0.05


def test_one_call_trains_polishes_and_matches_the_logits():
    (x_train, _), (x_test, _) = ni.load_mnist()
    forward = ni.tap(ni.pretrained("mlp"), "logits")
    start, truth = ni.InverseNetwork(epochs=3), x_test[:256]
    method = LevenbergMarquardt(start=start, covariance="errors")
    method.fit(forward, x_train[:3000])
    targets = forward.predict(truth, verbose=0)
    before, after = (ni.invert(forward, targets, m) for m in (start, method))
    assert after.residual.max() < 1e-6
    for measure, gain in ((metrics.psnr, 0.1), (metrics.ssim, 0.005)):
        difference = measure(truth, after.inputs) - measure(truth, before.inputs)
        assert difference.mean() > gain


def test_a_covariance_of_errors_needs_a_method_that_makes_them(gaussian):
    forward, inputs = gaussian
    with pytest.raises(ValueError, match="start=InverseNetwork"):
        LevenbergMarquardt(start="mean", covariance="errors").fit(forward, inputs)


@pytest.mark.parametrize("covariance", ["inputs", "errors"])
def test_a_covariance_that_has_learned_nothing_says_so(gaussian, covariance):
    forward, inputs = gaussian
    method = LevenbergMarquardt(start=Answer(inputs[0]), covariance=covariance)
    with pytest.raises(RuntimeError, match="call method.fit"):
        ni.invert(forward, np.zeros((1, 2)), method)


@pytest.mark.parametrize(
    "spread",
    [
        Spread(scale=np.ones(5)),
        Spread(scale=np.full(6, np.nan)),
        Spread(factor=np.ones(6)),
        Spread(factor=np.ones((5, 2))),
        Spread(floor=-1.0),
        None,
    ],
)
def test_a_covariance_that_gives_no_spread_is_told_what_is_expected(gaussian, spread):
    covariance = Identity()
    covariance.at = lambda inputs, targets: spread
    with pytest.raises(ValueError, match=r"scale \(6,\) or \(2, 6\), factor \(6, q\)"):
        ni.invert(
            gaussian[0], np.zeros((2, 2)), LevenbergMarquardt(covariance=covariance)
        )


class Unfit:
    """A covariance that cannot learn."""

    def at(self, inputs, targets):
        return Spread()


class Quiet(Unfit):
    """A covariance whose fit returns nothing."""

    def fit(self, forward, inputs, start):
        self.learned = len(inputs)


def test_a_covariance_needs_fit_but_nothing_that_it_returns(gaussian):
    forward, inputs = gaussian
    with pytest.raises(ValueError, match="object with fit and at"):
        LevenbergMarquardt(covariance=Unfit())
    method = LevenbergMarquardt(covariance=Quiet()).fit(forward, inputs[:9])
    assert ni.invert(forward, np.ones((1, 2)), method, bounds=None).converged.all()
    assert method.covariance.learned == 9


def test_what_was_fitted_for_another_network_says_so(gaussian):
    forward, inputs = gaussian
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    for method in (LevenbergMarquardt(), ni.GradientInversion(steps=1)):
        with pytest.raises(ValueError, match=r"shape \(6,\), and this network takes"):
            ni.invert(other, np.zeros((1, 2)), method.fit(forward, inputs))
