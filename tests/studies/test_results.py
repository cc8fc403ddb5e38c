"""A benchmark's intervals are right, and its table is what was measured, or refused."""

import hashlib
import json
import shutil
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from netinvert.studies import results, storage
from netinvert.studies.contestants import Unit
from tools.environment import ROOT

RESULTS = ROOT / "book" / "results"


def test_an_interval_of_one_training_is_that_of_scipy():
    values = np.random.default_rng(0).normal(3.0, 2.0, 500)
    theirs = bootstrap((values,), np.mean, n_resamples=5000, method="percentile")
    expected = theirs.confidence_interval
    np.testing.assert_allclose(results.interval(values), expected, atol=0.02)


def test_images_that_are_hard_for_both_do_not_blur_a_comparison():
    random = np.random.default_rng(0)
    hardness = random.normal(0, 5, 200)
    first, second = (hardness + random.normal(mean, 0.5, 200) for mean in (0.3, 0.0))
    assert results.interval(first)[0] < second.mean() < results.interval(first)[1]
    low, high = results.interval(first - second)
    assert 0.1 < low < 0.3 < high < 0.5


def covered(draw, truth: float, repetitions: int = 500) -> float:
    """In which share of repetitions the interval holds the true mean."""
    found = [results.interval(draw()) for _ in range(repetitions)]
    return np.mean([low <= truth <= high for low, high in found])


def test_95_of_100_intervals_hold_the_truth_for_skewed_numbers():
    random = np.random.default_rng(0)
    assert 0.92 < covered(lambda: random.exponential(size=200), truth=1.0) < 0.975


@pytest.mark.parametrize(("seeds", "images"), [(1.0, 0.0), (0.3, 5.0), (0.0, 5.0)])
def test_and_so_they_do_where_training_seeds_differ_and_images_too(seeds, images):
    random = np.random.default_rng(0)

    def draw():
        of_seeds = random.normal(0, seeds, (5, 1))
        return of_seeds + random.normal(0, images, 100) + random.normal(size=(5, 100))

    assert 0.93 < covered(draw, truth=0.0) < 0.985


def test_an_interval_needs_finite_numbers_of_several_images():
    for values in ([1.0], [[1.0], [2.0]], [1.0, np.nan], np.ones((2, 2, 2))):
        with pytest.raises(ValueError, match="finite numbers of at least two images"):
            results.interval(values)
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        results.interval([1.0, 2.0], confidence=95)


SPOILED = {
    "cut": lambda lines: [*lines[:-1], lines[-1][:40]],
    "a row lost": lambda lines: [*lines[:7], *lines[8:]],
    "a row twice": lambda lines: [*lines[:7], lines[7], *lines[7:]],
    "one row lost, another twice": lambda lines: [*lines[:8], lines[7], *lines[9:]],
    "an infinity": lambda lines: [
        lines[0],
        lines[1].replace("20760", "inf"),
        *lines[2:],
    ],
    "rows in another order": lambda lines: [lines[0], *lines[:0:-1]],
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_table_that_is_not_what_was_written_is_refused(tmp_path, kind):
    lines = (RESULTS / "head_to_head.csv").read_text().splitlines(keepends=True)
    spoiled = SPOILED[kind](lines)
    assert spoiled != lines
    path, provenance = tmp_path / "table.csv", tmp_path / "table.json"
    path.write_text("".join(spoiled))
    shutil.copy(RESULTS / "head_to_head.json", provenance)
    with pytest.raises(ValueError, match=r"table.csv is not what was written.*SHA-256"):
        results.load(path)
    # Nor is it taken from a program that writes such a table itself.
    facts = json.loads(provenance.read_text())
    facts["sha256"][".csv"] = hashlib.sha256(path.read_bytes()).hexdigest()
    provenance.write_text(json.dumps(facts))
    if kind == "rows in another order":
        assert len(results.load(path)) == facts["rows"]
        return
    number = None if kind == "cut" else "table.csv has 1145. rows .*Take the original"
    with pytest.raises(ValueError, match=number):
        results.load(path)


def test_values_that_were_cut_or_changed_are_refused(tmp_path):
    content = (RESULTS / "head_to_head.npz").read_bytes()
    shutil.copy(RESULTS / "head_to_head.json", tmp_path / "table.json")
    path = tmp_path / "table.npz"
    for spoiled in (content[:-1], content[:-100], content[1:], b""):
        path.write_bytes(spoiled)
        with pytest.raises(ValueError, match="table.npz is not what was written"):
            results.load_values(path)
    path.write_bytes(content)
    assert len(results.load_values(path)) == 1380 * 500


def write_unit(out: Path, unit: Unit, images: int = 7, **changes) -> Path:
    """Write what a run might have found of a unit; its file."""
    random = np.random.default_rng(0)
    found = {name: random.uniform(size=images) for name in results.OF_IMAGES}
    found |= {name: np.array(0.5) for name in results.SECONDS}
    found |= {"unit": np.array(list(map(str, astuple(unit))))}
    found |= {"setting": np.array("k = 3"), "outputs": np.array(10)}
    path = unit.path(out)
    storage.put(path, storage.packed(**(found | changes)), replace=True)
    return path


@pytest.mark.parametrize(
    ("measure", "value"), [("mse", np.nan), ("ssim", np.inf), ("fit_seconds", np.nan)]
)
def test_a_number_in_a_unit_that_is_none_names_the_file(tmp_path, measure, value):
    storage.check_folder(tmp_path, images=7)
    write_unit(tmp_path, Unit("mlp", 0, "logits", "ridge", 500))
    results.save_table(tmp_path)
    before = (tmp_path / "table.csv").read_bytes()
    spoiled = Unit("mlp", 0, "logits", "k-NN mean", 500)
    shape = () if measure.endswith("seconds") else 7
    path = write_unit(tmp_path, spoiled, **{measure: np.full(shape, value)})
    message = f"{path.name} has a NaN or infinity in {measure}: remove it"
    with pytest.raises(ValueError, match=message):
        results.save_table(tmp_path)
    assert (tmp_path / "table.csv").read_bytes() == before
    write_unit(tmp_path, spoiled, images=8)
    with pytest.raises(ValueError, match=f"{path.name} is not about 7 images"):
        results.save_table(tmp_path)


def test_a_unit_that_comes_while_the_table_is_written_is_in_it(tmp_path, monkeypatch):
    storage.check_folder(tmp_path, images=7)
    write_unit(tmp_path, Unit("mlp", 0, "logits", "ridge", 500))
    table_of = results.table_of

    def meanwhile(*of_units):
        write_unit(tmp_path, Unit("mlp", 0, "logits", "mean", 500))
        return table_of(*of_units)

    monkeypatch.setattr(results, "table_of", meanwhile)
    table = results.save_table(tmp_path)
    assert list(table["method"].unique()) == ["mean", "ridge"]
    pd.testing.assert_series_equal(
        results.load(tmp_path / "table.csv")["method"], table["method"]
    )


def test_a_foreign_file_among_the_results_is_named(tmp_path):
    storage.check_folder(tmp_path, images=7)
    for arrays in ({"mine": np.zeros(3)}, {"unit": np.array(["mlp", "0"])}):
        np.savez(tmp_path / "units" / "mine.npz", **arrays)
        with pytest.raises(ValueError, match="mine.npz is not the result"):
            results.read_units([tmp_path / "units" / "mine.npz"], images=7)


def test_the_table_is_what_the_numbers_of_the_images_give():
    rows = results.load(RESULTS / "head_to_head.csv")
    rows = rows.query("metric == 'psnr' and network == 'mlp'")
    assert rows["method"].nunique() >= 12
    psnr = results.load_values(RESULTS / "head_to_head.npz").query("network == 'mlp'")
    psnr = psnr.groupby(results.UNIT[2:], observed=True)
    for row in rows.iloc[::7].to_dict("records"):
        values = matrix(psnr, row, row["method"])
        if row["versus"]:
            values = values - matrix(psnr, row, row["versus"])
        found = values.mean(), *results.interval(values)
        stored = row["mean"], row["low"], row["high"]
        np.testing.assert_allclose(found, stored, atol=0.01)


def matrix(groups, row: dict, method: str) -> np.ndarray:
    """The PSNR of a method where a row speaks of it, (training seeds, images)."""
    values = groups.get_group((row["tap"], method, row["pairs"]))
    values = values.pivot(index="training_seed", columns="image", values="psnr")
    seed = row["training_seed"]
    return values.to_numpy() if seed == "all" else values.loc[[int(seed)]].to_numpy()


def test_the_shipped_table_is_what_would_be_written_today():
    rows = results.load(RESULTS / "head_to_head.csv")
    text = rows.to_csv(index=False, float_format="%.5g", lineterminator="\n")
    assert text.encode() == (RESULTS / "head_to_head.csv").read_bytes()
