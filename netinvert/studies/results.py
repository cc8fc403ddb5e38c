"""The benchmark's results: a folder of units becomes one table with its provenance."""

from __future__ import annotations

import csv
import datetime
import functools
import json
import zipfile
from pathlib import Path

import numpy as np

from netinvert.studies.contestants import DENSE, METHODS, TAPS, VALIDATION, Unit
from netinvert.studies.storage import arrays_in, claimed, whole

RIVAL = "k-NN mean"  # the best baseline, with which every method is compared
UNIT = ("network", "training_seed", "tap", "method", "pairs")
COSTS = (
    "fit_seconds",
    "tuning_seconds",
    "first_seconds",
    "seconds_per_target",
    "forward_passes",
    "fit_forward_passes",
)
NUMBERS = ("mean", "low", "high", *COSTS)
COUNTS = ("pairs", "outputs", "images", "seeds")
COLUMNS = (*UNIT, "setting", *COUNTS[1:], "metric", "versus", *NUMBERS)
METRICS = (
    "output_error",
    "log10_relative_output_error",
    "mse",
    "psnr",
    "ssim",
    "accuracy",
)
IN_A_UNIT = {
    "unit",
    "setting",
    "outputs",
    "output_error",
    "relative_output_error",
    "mse",
    "ssim",
    "accuracy",
    "fit_seconds",
    "tuning_seconds",
    "first_seconds",
    "seconds_per_target",
    "forward_seconds",
}
BEST_PSNR = 100.0  # of a reconstruction equal to its image, which has none
LEAST_ERROR = 1e-16  # relative; smaller ones are rounding


def load(path: str | Path) -> list[dict]:
    """Read the table of a benchmark.

    Parameters
    ----------
    path : str or Path
        A file such as ``book/results/head_to_head.csv``.

    Returns
    -------
    list of dict
        One for each row: numbers as numbers, with NaN where a cell is empty, and
        "training_seed" a number or "all".

    Raises
    ------
    ValueError
        If the file holds another table.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = csv.DictReader(line for line in file if not line.startswith("#"))
            rows = list(table)
        if not set(table.fieldnames or ()) >= set(COLUMNS):
            raise ValueError("it has other columns")
        for row in rows:
            row |= {name: int(row[name]) for name in COUNTS}
            row |= {
                name: float("nan" if row[name] == "" else row[name]) for name in NUMBERS
            }
            if row["training_seed"] != "all":
                row["training_seed"] = int(row["training_seed"])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is no table of a benchmark, such as its table.csv: {error}"
        ) from error
    return rows


def load_provenance(path: str | Path) -> dict:
    """Read where a table comes from: commands, versions, machine, images, seeds.

    Raises
    ------
    ValueError
        If the file holds no table of a benchmark.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line[1:] for line in file if line.startswith("#")]
        return dict(json.loads("".join(lines)))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is no table of a benchmark, such as its table.csv: {error}"
        ) from error


def load_values(path: str | Path, metric: str, **unit) -> np.ndarray:
    """Read one number per image, from the file beside a benchmark's table.

    Parameters
    ----------
    path : str or Path
        A file such as ``book/results/head_to_head.npz``.
    metric : {"psnr", "ssim", "accuracy", "log10_relative_output_error"}
    **unit
        Any of network, training_seed, tap, method and pairs.

    Returns
    -------
    float array (S, N)
        For each unit found, in the order of training seeds, one number for each
        of the first N test digits. Differences of two methods are paired.

    Raises
    ------
    ValueError
        If no unit is like that, there is no such metric or key, or the file holds
        something else.
    """
    if not zipfile.is_zipfile(path) or "units" not in arrays_in(path):
        raise ValueError(
            f"{path} holds no values of a benchmark, such as the values.npz beside "
            "its table.csv"
        )
    with np.load(path, allow_pickle=False) as arrays:
        units = arrays["units"]
        if metric not in arrays or metric == "units" or set(unit) - set(UNIT):
            known = ", ".join(name for name in arrays if name != "units")
            raise ValueError(
                f"metrics are {known} and keys are {', '.join(UNIT)}; "
                f"got {metric!r} and {', '.join(unit) or 'no key'}"
            )
        wanted = np.ones(len(units), bool)
        for name, value in unit.items():
            wanted &= units[:, UNIT.index(name)] == str(value)
        if not wanted.any():
            raise ValueError(f"there is no result for {unit} in {path}")
        return arrays[metric][wanted].astype("float64")


def save_table(out: Path) -> None:
    """Write table.csv and values.npz from all units in the folder."""
    units = read_units(out)
    if not units:
        return
    rows = [row for group in groups_of(units).values() for row in rows_of(group, units)]
    provenance = json.loads((out / "configuration.json").read_text(encoding="utf-8"))
    provenance |= {
        "commands": (out / "commands.txt").read_text(encoding="utf-8").splitlines(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "inverted": f"test digits 0 to {provenance['images'] - 1}",
        "settings": f"by test digits {VALIDATION.start} to {VALIDATION.stop - 1}",
        "training_seeds": sorted({int(unit[1]) for unit in units}),
        "seconds": "processor seconds, summed over cores",
    }
    with claimed(out / "table.csv"):
        with whole(out / "table.csv") as file:
            for line in json.dumps(provenance, indent=1).splitlines():
                file.write(f"# {line}\n")
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        save_values(out / "values.npz", units)


def read_units(out: Path) -> dict[tuple, dict]:
    """All units that are done, sorted, by what they are."""
    units = {}
    for path in (out / "units").glob("*.npz"):
        unit = arrays_in(path)
        if not unit:  # a method has nothing to offer there
            continue
        key = tuple(map(str, unit.get("unit", ())))
        named = len(key) == len(UNIT) and Unit(*key).path(out) == path
        if not (named and unit.keys() >= IN_A_UNIT):
            raise ValueError(
                f"{path} is not the result that its name says: remove it, and give the "
                "same command again"
            )
        units[key] = unit
    yardsticks = {}
    for (network, _, layer, *_), unit in units.items():
        yardsticks.setdefault((network, layer), []).append(unit["forward_seconds"])
    for (network, _, layer, *_), unit in units.items():
        add_logarithms(unit)
        add_ratios(unit, float(np.median(yardsticks[network, layer])))
    return dict(sorted(units.items(), key=place_of))


def place_of(item: tuple) -> tuple:
    """Where a unit stands: networks, taps and methods in the order of the plans."""
    network, seed, layer, method, pairs = item[0]
    place = list(TAPS).index(network), list(DENSE).index(layer)
    return *place, -int(pairs), list(METHODS).index(method), int(seed)


def add_logarithms(unit: dict) -> None:
    """Add the measures that are averages of logarithms."""
    error = np.maximum(unit["mse"], 10 ** (-BEST_PSNR / 10))
    unit["psnr"] = -10 * np.log10(error)
    relative = np.maximum(unit["relative_output_error"], LEAST_ERROR)
    unit["log10_relative_output_error"] = np.log10(relative)


def add_ratios(unit: dict, forward_seconds: float) -> None:
    """Add costs as numbers of forward passes of one image."""
    unit["forward_passes"] = unit["seconds_per_target"] / forward_seconds
    unit["fit_forward_passes"] = unit["fit_seconds"] / forward_seconds


def groups_of(units: dict) -> dict[tuple, list[tuple]]:
    """The units that differ by their training seed alone."""
    groups = {}
    for key in units:
        groups.setdefault((key[0], *key[2:]), []).append(key)
    return groups


def rows_of(group: list[tuple], units: dict) -> list[dict]:
    """The rows of one method on one tap: each training seed, all, and all compared."""
    members = [units[key] for key in group]
    network, layer, method, pairs = group[0][0], *group[0][2:]
    everyone = network, "all", layer, method, pairs
    costs = [{name: float(member[name]) for name in COSTS} for member in members]
    shared = {name: mean_of([cost[name] for cost in costs]) for name in COSTS}
    rivals = [(*key[:3], RIVAL, pairs) for key in group]
    rows = []
    for metric in METRICS:
        values = np.stack([member[metric] for member in members])
        for key, member, own, cost in zip(group, members, values, costs):
            rows.append(row(key, member, metric, own, cost))
        rows.append(row(everyone, members[0], metric, values, shared))
        if method != RIVAL and all(rival in units for rival in rivals):
            values = values - np.stack([units[rival][metric] for rival in rivals])
            rows.append(row(everyone, members[0], metric, values, shared, RIVAL))
    return rows


def mean_of(numbers: list[float]) -> float:
    """The mean of those that are known; NaN if none is."""
    known = [number for number in numbers if not np.isnan(number)]
    return float(np.mean(known)) if known else np.nan


def row(key, unit, metric, values, costs, versus="") -> dict:
    """One row of the table: a mean and its interval."""
    low, high = interval(values)
    numbers = {"mean": values.mean(), "low": low, "high": high, **costs}
    return {
        **dict(zip(UNIT, key)),
        "setting": str(unit["setting"]),
        "outputs": int(unit["outputs"]),
        "images": values.shape[-1],
        "seeds": 1 if values.ndim == 1 else len(values),
        "metric": metric,
        "versus": versus,
        **{
            name: "" if np.isnan(number) else f"{number:.5g}"
            for name, number in numbers.items()
        },
    }


def save_values(path: Path, units: dict) -> None:
    """Write one number per image, rounded to what 16 bits hold."""
    arrays = {
        name: np.stack([unit[name] for unit in units.values()]).astype("float16")
        for name in ("psnr", "ssim", "log10_relative_output_error")
    }
    arrays["accuracy"] = np.stack([u["accuracy"] for u in units.values()]).astype(bool)
    with whole(path, "wb") as file:
        np.savez_compressed(file, units=np.array(list(units)), **arrays)


RESAMPLES = 2000
SEED = 0


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Say between which numbers the mean lies, by a bootstrap (Efron 1979).

    Images are drawn again, with replacement. Where there are several training
    seeds, each answers the same images, and an image is drawn with all its answers.
    Seeds are too few to be drawn again, which would make the interval too short:
    the deviation of their mean is drawn from Student's t instead.

    Parameters
    ----------
    values : array (N,) or (S, N)
        One number per image, or per training seed and image; for a comparison,
        the differences between two methods.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    low, high : float
        With one training seed they speak of that network, and of any image; with
        several, of any network trained like these.

    Raises
    ------
    ValueError
        If there are fewer than two images, a value is not finite, or the
        confidence is out of range.
    """
    values = np.atleast_2d(np.asarray(values, "float64"))
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(
            "an interval needs finite numbers of at least two images, shape (N,) or "
            f"(S, N) for S training seeds; got {values.shape}, of which "
            f"{np.count_nonzero(~np.isfinite(values))} are not finite"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    seeds, images = values.shape
    means = shares(images) @ values.mean(axis=0)
    if seeds > 1:
        spread = values.mean(axis=1).std(ddof=1) / np.sqrt(seeds)
        deviation = np.random.default_rng(SEED).standard_t(seeds - 1, RESAMPLES)
        means = means + spread * deviation
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@functools.lru_cache(maxsize=4)
def shares(images: int) -> np.ndarray:
    """How often each of the images is drawn, over their number: (RESAMPLES, images)."""
    random = np.random.default_rng(SEED)
    equal = np.full(images, 1 / images)
    return random.multinomial(images, equal, RESAMPLES) / images
