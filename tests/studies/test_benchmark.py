"""The benchmark's intervals are right, and nothing it has done is lost or redone."""

import itertools
import multiprocessing
import subprocess
import sys
import threading
import time
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from netinvert.data import checksum_of
from netinvert.forward import tap
from netinvert.models import NETWORKS, VARIANTS
from netinvert.studies import benchmark as command
from netinvert.studies import results, storage
from netinvert.studies import results as benchmark
from netinvert.studies.benchmark import finish
from netinvert.studies.contestants import (
    FULL,
    METHODS,
    MOST_OUTPUTS,
    SMALL,
    TAPS,
    Unit,
    units_of,
)
from tools.environment import ROOT

RESULTS = ROOT / "book" / "results"
# Choosing the weight of that prior takes a quarter of the small run's time.
QUICK = [name for name in METHODS if name != "gradient"]


def test_an_interval_of_many_numbers_is_that_of_the_textbook():
    values = np.random.default_rng(0).normal(3.0, 2.0, 500)
    low, high = benchmark.interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(500)
    np.testing.assert_allclose(
        [low, high], values.mean() + np.array([-half, half]), atol=0.02
    )


def test_images_that_are_hard_for_both_do_not_blur_a_comparison():
    random = np.random.default_rng(0)
    hardness = random.normal(0, 5, 200)
    first, second = (hardness + random.normal(mean, 0.5, 200) for mean in (0.3, 0.0))
    assert benchmark.interval(first)[0] < second.mean() < benchmark.interval(first)[1]
    low, high = benchmark.interval(first - second)
    assert 0.1 < low < 0.3 < high < 0.5


def covered(draw, truth: float, repetitions: int = 500) -> float:
    """In which share of repetitions the interval holds the true mean."""
    found = [benchmark.interval(draw()) for _ in range(repetitions)]
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
            benchmark.interval(values)
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        benchmark.interval([1.0, 2.0], confidence=95)


def arguments(out: Path, methods=QUICK) -> list[str]:
    return ["--methods", *methods, "--out", str(out)]


def started(out: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "netinvert.studies.benchmark", *arguments(out)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(words, cwd=ROOT, **quiet)


def finished(out: Path) -> dict[str, int]:
    """The results that are there, and when each was written."""
    return {p.name: p.stat().st_mtime_ns for p in (out / "units").glob("*.npz")}


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The small run, killed after its first result and then finished by two runs.

    Its folder, and what was there when it was killed.
    """
    out = tmp_path_factory.mktemp("benchmark") / "small"
    run = started(out)
    while not finished(out) and run.poll() is None:
        time.sleep(0.02)
    run.kill()
    run.wait()
    before = finished(out)
    other = started(out)
    command.main(arguments(out))
    assert other.wait(timeout=300) == 0
    return out, before


def test_a_killed_run_goes_on_where_it_stopped_also_as_two_at_once(small_run):
    out, before = small_run
    after = finished(out)
    assert 0 < len(before) < len(after) == len(QUICK)
    assert {name: after[name] for name in before} == before
    command.main(arguments(out, ["blank", "ridge"]))
    assert finished(out) == after


def test_a_small_run_agrees_with_the_results_of_the_book(small_run):
    rows = benchmark.load(small_run[0] / "table.csv")
    rows = [row for row in rows if row["training_seed"] == 0]
    assert {row["method"] for row in rows} == set(QUICK)
    for row in rows:
        if row["metric"] in ("psnr", "ssim", "accuracy"):
            unit = {name: row[name] for name in results.UNIT}
            path = RESULTS / "head_to_head.npz"
            book = benchmark.load_values(path, row["metric"], **unit)
            there = book[:, : row["images"]].mean()
            assert row["low"] - 0.005 <= there <= row["high"] + 0.005, row


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.npz"
    with pytest.raises(KeyboardInterrupt), storage.whole(path, "wb") as file:
        file.write(b"half of it")
        raise KeyboardInterrupt
    assert not path.exists()
    with storage.whole(path, "wb") as file:
        file.write(b"all of it")
    assert path.read_bytes() == b"all of it"


def hold(path: Path, holding) -> None:
    with storage.claimed(path):
        holding.set()
        time.sleep(60)


def test_what_another_run_is_at_is_left_to_it_until_it_dies(tmp_path):
    path, processes = tmp_path / "result.npz", multiprocessing.get_context("spawn")
    holding = processes.Event()
    run = processes.Process(target=hold, args=(path, holding))
    run.start()
    assert holding.wait(timeout=60)
    with storage.claimed(path, wait=False) as mine:
        assert not mine
    threading.Timer(0.3, run.kill).start()
    with storage.claimed(path) as mine:
        assert mine
    run.join()
    with storage.claimed(path, wait=False) as mine:
        assert mine


def test_what_another_run_has_done_meanwhile_is_not_done_again(tmp_path):
    unit = Unit("mlp", 0, "logits", "blank", 500)
    storage.check_folder(tmp_path, images=100)
    run = threading.Thread(target=finish, args=(unit, 100, tmp_path))
    with storage.claimed(unit.path(tmp_path)):
        run.start()
        time.sleep(0.3)
        unit.path(tmp_path).write_bytes(b"what the other run found")
    run.join()
    assert unit.path(tmp_path).read_bytes() == b"what the other run found"


@pytest.mark.parametrize(
    ("option", "known"),
    [("--methods", "ridge"), ("--taps", "first hidden"), ("--networks", "robust")],
)
def test_an_unknown_name_is_refused_with_those_there_are(option, known, capsys):
    with pytest.raises(SystemExit):
        command.main([option, "magic"])
    message = capsys.readouterr().err
    assert "magic" in message and known in message


def test_a_folder_of_something_else_or_of_another_run_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear reader")
    with pytest.raises(SystemExit, match="something else than a benchmark"):
        command.main(arguments(tmp_path))
    with pytest.raises(SystemExit, match="something else than a benchmark"):
        command.main(arguments(tmp_path / "letter.txt"))
    out = tmp_path / "results"
    storage.check_folder(out, images=7)
    with pytest.raises(SystemExit, match=r"images 7 there, 100 now.*another --out"):
        command.main(arguments(out))


def test_what_is_damaged_or_cannot_be_is_named(tmp_path):
    out, letter = tmp_path / "results", tmp_path / "letter.txt"
    letter.write_text("Dear,reader")
    blank = arguments(out, ["blank"])
    command.main(blank)
    (unit,) = (out / "units").glob("*.npz")
    for content in (unit.read_bytes()[:99], b"", b"no archive"):
        unit.write_bytes(content)
        with pytest.raises(SystemExit, match="500.npz is damaged .*: delete it"):
            command.main(blank)
    (out / "configuration.json").write_text("[1]")
    with pytest.raises(SystemExit, match="configuration.json is damaged"):
        command.main(blank)
    with pytest.raises(SystemExit, match="letter.txt"):
        command.main(arguments(letter / "results"))
    archive = tmp_path / "archive.npz"
    np.savez(archive, psnr=np.zeros(3))
    for content in (b"Dear,reader\nof,mine", b"Dear reader", b"", archive.read_bytes()):
        letter.write_bytes(content)
        for read in (benchmark.load, benchmark.load_provenance):
            with pytest.raises(ValueError, match="no table of a benchmark"):
                read(letter)
        with pytest.raises(ValueError, match="no values of a benchmark"):
            benchmark.load_values(letter, "psnr")


def test_a_table_that_was_cut_short_is_refused(tmp_path):
    whole = (RESULTS / "head_to_head.csv").read_text(encoding="utf-8")
    (tmp_path / "table.csv").write_text(whole[:-60], encoding="utf-8")
    with pytest.raises(ValueError, match="no table of a benchmark"):
        benchmark.load(tmp_path / "table.csv")
    (tmp_path / "table.csv").write_text("# 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no table of a benchmark"):
        benchmark.load_provenance(tmp_path / "table.csv")


def test_a_foreign_file_among_the_results_is_named(tmp_path):
    storage.check_folder(tmp_path, images=7)
    for arrays in ({"mine": np.zeros(3)}, {"unit": np.array(["mlp", "0"])}):
        np.savez(tmp_path / "units" / "mine.npz", **arrays)
        with pytest.raises(ValueError, match="mine.npz is not the result"):
            results.read_units(tmp_path)


def test_a_result_under_the_name_of_another_is_refused(tmp_path):
    command.main(arguments(tmp_path, ["blank"]))
    (unit,) = (tmp_path / "units").glob("*.npz")
    unit.rename(unit.with_name(unit.name.replace("blank", "mean")))
    with pytest.raises(SystemExit, match="mean-500.npz is not the result that its"):
        command.main(arguments(tmp_path, ["mean"]))


def test_a_selection_without_an_answer_says_so(tmp_path):
    wide = ["--networks", "cnn", "--taps", "first hidden"]
    wide += arguments(tmp_path, ["Levenberg-Marquardt"])
    with pytest.raises(SystemExit, match="None of these methods"):
        command.main(wide)
    command.main(arguments(tmp_path, ["blank"]))
    with pytest.raises(SystemExit, match="None of these methods"):
        command.main(wide)  # and does not show what another selection gave


def test_plans_that_overlap_ask_for_nothing_twice():
    plan = SMALL["plans"][0]
    units = units_of([plan, plan | {"taps": ("logits", "softmax")}], seeds=2)
    assert len(units) == len(set(units)) == 4 * len(plan["methods"])
    paths = {unit.path(Path()) for unit in units}
    assert len(paths) == len(units)


def test_the_command_is_recorded_without_folders():
    words = command.command_of(True, {"methods": ["k-NN mean"], "networks": ["cnn"]})
    assert words == (
        "python -m netinvert.studies.benchmark --full "
        "--methods 'k-NN mean' --networks cnn"
    )
    provenance = benchmark.load_provenance(RESULTS / "head_to_head.csv")
    assert "python -m netinvert.studies.benchmark --full" in provenance["commands"]
    assert not any("/" in word for word in provenance["commands"])
    assert checksum_of("evaluator.npz") in provenance["evaluator"]


def test_the_table_is_what_the_numbers_of_the_images_give():
    rows = benchmark.load(RESULTS / "head_to_head.csv")
    rows = [row for row in rows if row["metric"] == "psnr" and row["network"] == "mlp"]
    assert len({row["method"] for row in rows}) >= 12
    for row in itertools.islice(rows, 0, None, 7):
        unit = {name: row[name] for name in results.UNIT}
        if unit["training_seed"] == "all":
            del unit["training_seed"]
        values = benchmark.load_values(RESULTS / "head_to_head.npz", "psnr", **unit)
        if row["versus"]:
            unit["method"] = row["versus"]
            rival = benchmark.load_values(RESULTS / "head_to_head.npz", "psnr", **unit)
            values = values - rival
        found = values.mean(), *benchmark.interval(values)
        stored = row["mean"], row["low"], row["high"]
        np.testing.assert_allclose(found, stored, atol=0.01)


def has_an_answer(unit: Unit) -> bool:
    """Whether the tap is narrow enough for the method."""
    model = (NETWORKS | VARIANTS)[unit.network]()
    forward = tap(model, TAPS[unit.network][unit.tap])
    widest = {"PCA floor": 783, "Levenberg-Marquardt": MOST_OUTPUTS}
    widest["inverse network, polished"] = MOST_OUTPUTS
    return np.prod(forward.output_shape[1:]) <= widest.get(unit.method, np.inf)


def test_the_results_of_the_book_are_those_of_the_full_run():
    with np.load(RESULTS / "head_to_head.npz") as arrays:
        found = {tuple(unit) for unit in arrays["units"]}
    planned = filter(has_an_answer, units_of(FULL["plans"], FULL["seeds"]))
    assert found == {tuple(map(str, astuple(unit))) for unit in planned}


def test_a_result_that_is_not_there_is_asked_for_in_vain():
    path = RESULTS / "head_to_head.npz"
    with pytest.raises(ValueError, match="no result for .*magic"):
        benchmark.load_values(path, "psnr", method="magic")
    with pytest.raises(ValueError, match="metrics are .*ssim"):
        benchmark.load_values(path, "beauty", method="ridge")
    with pytest.raises(ValueError, match="keys are network"):
        benchmark.load_values(path, "psnr", layer="logits")
