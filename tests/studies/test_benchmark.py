"""Nothing that a run of the benchmark has done is lost, redone or silently wrong."""

import functools
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from netinvert.data import checksum_of, load_mnist
from netinvert.forward import tap
from netinvert.models import NETWORKS, VARIANTS
from netinvert.studies import benchmark, census, results, storage, train
from netinvert.studies.contestants import (
    FULL,
    METHODS,
    SMALL,
    TAPS,
    Task,
    Unit,
    units_of,
)
from tools.environment import ROOT

RESULTS = ROOT / "book" / "results"
# Choosing the weight of that prior takes a quarter of the small run's time.
QUICK = [name for name in METHODS if name != "gradient"]


def arguments(out: Path, methods=QUICK) -> list[str]:
    return ["--methods", *methods, "--out", str(out)]


def started(out: Path, methods=QUICK) -> subprocess.Popen:
    command = [sys.executable, "-m", "netinvert.studies.benchmark"]
    words = [*command, *arguments(out, methods)]
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
    other = started(out, ["autoencoder", "inverse network"])
    benchmark.main(arguments(out))
    assert other.wait(timeout=300) == 0
    return out, before


def test_a_killed_run_goes_on_where_it_stopped_also_as_two_at_once(small_run):
    out, before = small_run
    after = finished(out)
    assert 0 < len(before) < len(after) == len(QUICK)
    assert {name: after[name] for name in before} == before
    benchmark.main(arguments(out, ["blank", "ridge"]))
    assert finished(out) == after


def test_a_small_run_agrees_with_the_results_of_the_book(small_run):
    rows = results.load(small_run[0] / "table.csv")
    rows = rows[rows["training_seed"] == "0"]
    assert set(rows["method"]) == set(QUICK)
    book = results.load_values(RESULTS / "head_to_head.npz")
    book = book.query("training_seed == 0 and image < 100")
    book = book.groupby(results.UNIT, observed=True).mean()
    for row in rows.to_dict("records"):
        if row["metric"] in ("psnr", "ssim", "accuracy"):
            unit = tuple(row[name] for name in results.UNIT)
            there = book.loc[(unit[0], 0, *unit[2:]), row["metric"]]
            assert row["low"] - 0.005 <= there <= row["high"] + 0.005, row


def measures_in(out: Path) -> list:
    """What a run found of each unit, without its seconds."""
    paths = sorted((out / "units").glob("*.npz"))
    units = [storage.arrays_in(path) for path in paths]
    return [{name: unit[name].tolist() for name in results.OF_IMAGES} for unit in units]


def test_two_runs_that_do_the_same_unit_find_the_same(tmp_path):
    outs = tmp_path / "one", tmp_path / "other"
    for out in outs:
        benchmark.main(arguments(out, ["ridge", "class mean"]))
    assert measures_in(outs[0]) == measures_in(outs[1]) != []


def test_a_file_is_there_whole_or_not_at_all_and_then_it_stays(tmp_path):
    path = tmp_path / "result.npz"
    with pytest.raises(TypeError):
        storage.put(path, "no bytes")
    assert not list(tmp_path.iterdir())
    contents = [bytes([n]) * 100_000 for n in range(8)]
    runs = [threading.Thread(target=storage.put, args=(path, x)) for x in contents]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    first = path.read_bytes()
    assert first in contents
    storage.put(path, b"later")
    assert path.read_bytes() == first and list(tmp_path.iterdir()) == [path]
    storage.put(path, b"anew", replace=True)
    assert path.read_bytes() == b"anew" and list(tmp_path.iterdir()) == [path]


def test_what_another_run_has_done_meanwhile_is_not_done_again(tmp_path):
    def train_slowly():  # and meanwhile another run has trained it
        storage.put(path, storage.packed(3.0, *theirs.get_weights()))
        return NETWORKS["mlp"]()

    path, theirs = tmp_path / "mlp-1.npz", NETWORKS["mlp"]()
    model, seconds = storage.kept(path, train_slowly, NETWORKS["mlp"])
    assert seconds == 3.0
    for ours, other in zip(model.get_weights(), theirs.get_weights()):
        np.testing.assert_array_equal(ours, other)


def test_a_full_disk_says_so_and_nothing_is_lost(tmp_path):
    resource = pytest.importorskip("resource")  # Windows has no such limits
    benchmark.main(arguments(tmp_path, ["blank"]))
    before = finished(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
    try:
        with pytest.raises(SystemExit, match="too large(.|\n)*What is done stays in"):
            benchmark.main(arguments(tmp_path, ["mean"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert finished(tmp_path) == before
    assert not list(tmp_path.rglob("*.partial"))
    benchmark.main(arguments(tmp_path, ["mean"]))
    rows = results.load(tmp_path / "table.csv")
    assert set(rows["method"]) == {"blank", "mean"}


@pytest.mark.parametrize(
    ("option", "known"),
    [("--methods", "ridge"), ("--taps", "first hidden"), ("--networks", "robust")],
)
def test_an_unknown_name_is_refused_with_those_there_are(option, known, capsys):
    with pytest.raises(SystemExit):
        benchmark.main([option, "magic"])
    message = capsys.readouterr().err
    assert "magic" in message and known in message


def test_help_says_what_there_is(capsys):
    for main, names in (
        (benchmark.main, [*TAPS, *TAPS["mlp"], *METHODS, "--full", "--out"]),
        (train.main, [*NETWORKS, "autoencoder", "bottleneck", "inverse"]),
        (census.main, ["FILE.npz"]),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert stop.value.code == 0 and all(name in text for name in names)


def test_a_folder_of_something_else_or_of_another_run_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear reader")
    with pytest.raises(SystemExit, match="something else than a benchmark"):
        benchmark.main(arguments(tmp_path))
    with pytest.raises(SystemExit, match="something else than a benchmark"):
        benchmark.main(arguments(tmp_path / "letter.txt"))
    out = tmp_path / "results"
    storage.check_folder(out, images=7)
    with pytest.raises(SystemExit, match=r"images 7 there, 100 now.*another --out"):
        benchmark.main(arguments(out))


def test_what_is_damaged_or_cannot_be_is_named(tmp_path):
    out, letter = tmp_path / "results", tmp_path / "letter.txt"
    letter.write_text("Dear,reader")
    blank = arguments(out, ["blank"])
    benchmark.main(blank)
    (unit,) = (out / "units").glob("*.npz")
    for content in (unit.read_bytes()[:99], b"", b"no archive"):
        unit.write_bytes(content)
        with pytest.raises(SystemExit, match="500.npz is damaged .*: delete it"):
            benchmark.main(blank)
    (out / "configuration.json").write_text("[1]")
    with pytest.raises(SystemExit, match="configuration.json is damaged"):
        benchmark.main(blank)
    with pytest.raises(SystemExit, match="letter.txt"):
        benchmark.main(arguments(letter / "results"))
    shutil.copy(RESULTS / "head_to_head.json", letter.with_suffix(".json"))
    for read in (results.load, results.load_values):
        with pytest.raises(ValueError, match="letter.txt is no result of a benchmark"):
            read(letter)
        with pytest.raises(ValueError, match="with table.json beside it"):
            read(unit)


def test_a_run_killed_between_the_files_of_its_table_is_mended(tmp_path):
    benchmark.main(arguments(tmp_path, ["blank"]))
    old = {path: path.read_bytes() for path in tmp_path.glob("table.*")}
    assert len(old) == 3
    benchmark.main(arguments(tmp_path, ["mean"]))
    for path, content in old.items():
        new = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not what was written"):
            results.load(tmp_path / "table.csv")
            results.load_values(tmp_path / "table.npz")
        path.write_bytes(new)
    for path, content in old.items():
        path.write_bytes(content)
    benchmark.main(arguments(tmp_path, ["mean"]))
    assert len(results.load_values(tmp_path / "table.npz")) == 200
    assert results.load(tmp_path / "table.csv")["method"].nunique() == 2


def test_a_result_under_the_name_of_another_is_refused(tmp_path):
    benchmark.main(arguments(tmp_path, ["blank"]))
    (unit,) = (tmp_path / "units").glob("*.npz")
    unit.rename(unit.with_name(unit.name.replace("blank", "mean")))
    with pytest.raises(SystemExit, match="mean-500.npz is not the result that its"):
        benchmark.main(arguments(tmp_path, ["mean"]))


def test_a_selection_without_an_answer_says_so(tmp_path):
    wide = ["--networks", "cnn", "--taps", "first hidden"]
    wide += arguments(tmp_path, ["PCA floor"])
    with pytest.raises(SystemExit, match="None of these methods"):
        benchmark.main(wide)
    benchmark.main(arguments(tmp_path, ["blank"]))
    with pytest.raises(SystemExit, match="None of these methods"):
        benchmark.main(wide)  # and does not show what another selection gave


def test_plans_that_overlap_ask_for_nothing_twice():
    plan = SMALL["plans"][0]
    units = units_of([plan, plan | {"taps": ("logits", "softmax")}], seeds=2)
    assert len(units) == len(set(units)) == 4 * len(plan["methods"])
    paths = {unit.path(Path()) for unit in units}
    assert len(paths) == len(units)


def test_the_command_is_recorded_without_folders():
    words = benchmark.command_of(True, {"methods": ["k-NN mean"], "networks": ["cnn"]})
    assert words == (
        "python -m netinvert.studies.benchmark --full "
        "--methods 'k-NN mean' --networks cnn"
    )
    provenance = results.load(RESULTS / "head_to_head.csv").attrs
    assert "python -m netinvert.benchmark --full" in provenance["commands"]  # of then
    assert not any("/" in word for word in provenance["commands"])
    assert checksum_of("evaluator.npz") in provenance["evaluator"]


@functools.cache
def width(network: str, layer: str) -> int:
    """How many outputs a tap has."""
    model = (NETWORKS | VARIANTS)[network]()
    return np.prod(tap(model, TAPS[network][layer]).output_shape[1:])


def has_an_answer(unit: Unit) -> bool:
    return unit.method != "PCA floor" or width(unit.network, unit.tap) < 784


def test_second_order_search_may_enter_at_a_wide_tap(tmp_path):
    (x_train, _), _ = load_mnist()
    images = x_train[:10]
    forward = tap(VARIANTS["wide"](), "hidden_1")
    task = Task(forward, [], images, images, 0, tmp_path, "wide")
    assert METHODS["Levenberg-Marquardt"](task)[0]


def test_the_results_of_the_book_are_those_of_the_full_run():
    with np.load(RESULTS / "head_to_head.npz") as arrays:
        found = {tuple(unit) for unit in arrays["units"]}
    planned = filter(has_an_answer, units_of(FULL["plans"], FULL["seeds"]))
    assert found == {tuple(map(str, astuple(unit))) for unit in planned}
