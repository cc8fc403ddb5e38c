"""Assignment 5: an inverse network."""

from __future__ import annotations

import functools

import numpy as np

import netinvert as ni
from tools.assignments import cases
from tools.assignments.judges import Mark, checks, close, output_error, trouble

TITLE, MINUTES = "An inverse network", 120
TASKS = {"best_answer": 4, "learn": 5, "claims": 3, "cycle": 4}
PAIRS, TARGETS, ASKED, GAIN, OWN_GAIN = 2000, 12, 32, 1.5, 1.2
CLAIMS = [  # that follow from training on squared errors, and that do not
    ("Two inputs with the same output get the same answer.", True),
    ("The best answer to an output is the mean of the inputs that have it.", True),
    ("Where the mean of digits is no digit, the best answer is no digit.", True),
    ("A large error of f(g(y)) proves that the answer g(y) is wrong.", True),
    ("A small error of f(g(y)) proves that g(y) is the picture.", False),
    ("With enough training pairs, every answer becomes sharp.", False),
    ("A larger g brings back what f has thrown away.", False),
    ("If an answer is blurred, g was trained too briefly.", False),
]

PRELUDE = """
def _learned():
    g = learn(GIVEN["x"], GIVEN["y"])
    return g(GIVEN["asked"]), g(GIVEN["asked"][:1])

_answers = None

def _answer(number):
    global _answers
    if _answers is None:
        _answers = _learned()
    return _answers[number]
"""
ASKS = {
    "best_answer": "best_answer(GIVEN['xs'], GIVEN['ys'], GIVEN['want'])",
    "best_answer.other": "best_answer(GIVEN['xs'] * 3, GIVEN['ys'], GIVEN['back'])",
    "learn": "_answer(0)",
    "learn.one": "_answer(1)",
    "claims": "[bool(word) for word in follows]",
    "cycle.answers": "answers",
    "cycle.error": "cycle",
}


def truth_of(case: cases.Case) -> np.ndarray:
    return cases.digits(case.random("secret"), TARGETS)


def targets_of(case: cases.Case) -> np.ndarray:
    return cases.outputs_of(truth_of(case))


def claims_of(case: cases.Case) -> list[tuple[str, bool]]:
    """Four claims, two that follow and two that do not, or three and one."""
    random = case.random("claims")
    true = random.choice([1, 2, 3])
    chosen = [*random.choice(4, true, replace=False)]
    chosen += [*(4 + random.choice(4, 4 - true, replace=False))]
    return [CLAIMS[number] for number in random.permutation(chosen)]


def case_cell(case: cases.Case) -> str:
    claims = "\n".join(f'    "{text}",' for text, _ in claims_of(case))
    targets = f"targets = {cases.written(targets_of(case))}"
    return cases.cell(case, targets, f"claims = [\n{claims}\n]")


@functools.lru_cache(4)
def secret_pairs(case: cases.Case):
    """What a network that no notebook has seen says of 2,000 digits, and of others."""
    random = case.random("pairs")
    mix = random.normal(size=(784, 20)) / 10
    chosen = random.choice(8000, PAIRS, replace=False)
    x, truth = cases.mnist()[0][0][chosen], cases.digits(random, ASKED)
    outputs = [np.tanh(a.reshape(len(a), 784) @ mix) * 4 + 1 for a in (x, truth)]
    return x, *(values.astype("float32") for values in outputs), truth


def given(case: cases.Case) -> dict:
    """Pairs to learn from, and a small table for the best answers."""
    random, (x, y, asked, _) = case.random("table"), secret_pairs(case)
    table = {"xs": random.normal(size=(40, 3)), "ys": random.integers(0, 5, 40)}
    return {"x": x, "y": y, "asked": asked, **table} | {
        "want": np.arange(5),
        "back": np.arange(5)[::-1],
    }


def judge(answers: dict, case: cases.Case) -> dict[str, Mark]:
    """Measure what came back; the terms of every task are in the notebook."""
    arrays, get, marks = given(case), answers.get, {}
    xs, ys = arrays["xs"], arrays["ys"]
    means = np.stack([xs[ys == value].mean(axis=0) for value in range(5)])
    one = close(get("best_answer"), means, 1e-5)
    other = close(get("best_answer.other"), 3 * means[::-1], 1e-5)
    parts = [(2, "forty pairs", one), (2, "others, in another order", other)]
    marks["best_answer"] = checks(parts, 4)
    truth = secret_pairs(case)[3]
    marks["learn"] = judge_learn(get("learn"), get("learn.one"), truth)
    follows = np.array([right for _, right in claims_of(case)])
    if why := trouble(get("claims"), (4,)):
        marks["claims"] = Mark(0, why)
    else:
        right = int((get("claims").astype(bool) == follows).sum())
        marks["claims"] = Mark({4: 3, 3: 1}.get(right, 0), f"{right} of 4 are right")
    marks["cycle"] = judge_cycle(get("cycle.answers"), get("cycle.error"), case)
    return marks


def gain_of(found, truth) -> float:
    """Decibels over the mean digit, on average."""
    floor = np.broadcast_to(cases.mean_digit(), truth.shape)
    return float((ni.metrics.psnr(truth, found) - ni.metrics.psnr(truth, floor)).mean())


def judge_learn(found, one, truth) -> Mark:
    if why := trouble(found, truth.shape, box=True):
        return Mark(0, why)
    gain = gain_of(found, truth)
    points = float(np.floor(8 * np.clip(gain / GAIN, 0, 1)) / 2)
    alone = close(one, found[:1], 1e-3)
    said = f"{gain:+.1f} dB over the mean digit, where {GAIN} was expected (4 points)"
    said += f"; one target alone: {alone or 'the same answer'} (1 point)"
    return Mark(points + (1 if points and not alone else 0), said)


def judge_cycle(found, error, case) -> Mark:
    truth = truth_of(case)
    if why := trouble(found, truth.shape, box=True):
        return Mark(0, why)
    gain = gain_of(found, truth)
    points = float(np.floor(6 * np.clip(gain / OWN_GAIN, 0, 1)) / 2)
    wanted = output_error(cases.logits(), found, targets_of(case))
    wrong = close(error, wanted, 1e-2 * wanted.max())
    return Mark(
        points + (1 if points and not wrong else 0),
        f"{gain:+.1f} dB over the mean digit; {OWN_GAIN} was expected (3 points); "
        f"the cycle's error: {wrong or 'right'} (1 point)",
    )


def pictures(answers: dict, case: cases.Case) -> dict:
    """Rows to look at: the answers to the student's own targets."""
    return {"answers": answers.get("cycle.answers")}
