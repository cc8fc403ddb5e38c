"""The results of a benchmark: a table with its provenance, and one number per image."""

from __future__ import annotations

import datetime
import functools
import hashlib
import io
import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from netinvert.studies.contestants import DENSE, METHODS, TAPS, VALIDATION, Unit
from netinvert.studies.storage import arrays_in, packed, put

RIVAL = "k-NN mean"  # the best baseline, with which every method is compared
UNIT = [field.name for field in fields(Unit)]
# Settings are chosen for the first training seed, and what that and a later call cost
# does not depend on it.
ONCE = ["tuning_seconds", "seconds_per_target"]
SECONDS = ["fit_seconds", "first_seconds", "forward_seconds", *ONCE]
COSTS = ["fit_seconds", ONCE[0], "first_seconds", ONCE[1]]
COSTS += ["forward_passes", "fit_forward_passes"]
NUMBERS = ["mean", "low", "high", *COSTS]
OF_IMAGES = ["output_error", "relative_output_error", "mse", "ssim", "accuracy"]
LOGARITHM = "log10_relative_output_error"
METRICS = ["output_error", LOGARITHM, "mse", "psnr", "ssim", "accuracy"]
COUNTS = ["outputs", "images", "seeds"]
COLUMNS = [*UNIT, "setting", *COUNTS, "metric", "versus", *NUMBERS]
RESAMPLES, SEED = 2000, 0
REPAIR = "Take the original again, or give the benchmark's command again in its folder."


def load(path: str | Path) -> pd.DataFrame:
    """Read the table of a benchmark, if it is what was written.

    Parameters
    ----------
    path : str or Path
        A file such as ``book/results/head_to_head.csv``; its provenance lies beside
        it, in ``head_to_head.json``.

    Returns
    -------
    pandas.DataFrame
        A row for each network, training_seed ("0", "1", ... or "all"), tap, method,
        pairs and metric: the "mean" with its 95 % interval, "low" to "high", or the
        mean difference from the method in "versus"; and costs, NaN where unknown.
        ``attrs`` is the provenance: commands, versions, machine, images, seeds.

    Raises
    ------
    ValueError
        If the table was changed or cut, has a row twice or holds an infinity.
    """
    content, provenance = checked(path)
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    table[NUMBERS] = table[NUMBERS].replace("", "nan").astype(float)
    table = table.astype(dict.fromkeys(["pairs", *COUNTS], int))
    twice = table.duplicated([*UNIT, "metric", "versus"]).sum()
    numbers = table[NUMBERS].fillna(dict.fromkeys(COSTS, 0.0))
    infinite = (~np.isfinite(numbers)).any(axis=1).sum()
    if len(table) != (rows := provenance["rows"]) or twice or infinite:
        raise ValueError(
            f"{path} has {len(table)} rows where its provenance says {rows}, {twice} "
            f"of them twice and {infinite} with an infinity or no number. {REPAIR}"
        )
    table.attrs = provenance
    return table


def load_values(path: str | Path) -> pd.DataFrame:
    """Read what was measured of each image, from the file beside a benchmark's table.

    Parameters
    ----------
    path : str or Path
        A file such as ``book/results/head_to_head.npz``.

    Returns
    -------
    pandas.DataFrame
        A row for each network, training_seed (a number), tap, method, number of pairs
        and image (0 to N - 1, of the test digits, the same for all methods), with
        "psnr", "ssim", "accuracy" and "log10_relative_output_error".

    Raises
    ------
    ValueError
        If the file was changed or cut, or holds something else.
    """
    with np.load(io.BytesIO(checked(path)[0]), allow_pickle=False) as arrays:
        arrays = dict(arrays)
    kinds = dict.fromkeys(UNIT, "category") | {"training_seed": int, "pairs": int}
    units = pd.DataFrame(arrays.pop("units"), columns=UNIT).astype(kinds)
    count, images = arrays["psnr"].shape
    values = units.loc[units.index.repeat(images)].reset_index(drop=True)
    values["image"] = np.tile(np.arange(images), count)
    return values.assign(**{k: v.ravel().astype(float) for k, v in arrays.items()})


def checked(path: str | Path) -> tuple[bytes, dict]:
    """The content of a file of results, which must be what its provenance says."""
    path = Path(path)
    content = path.read_bytes()
    try:
        provenance = dict(json.loads(path.with_suffix(".json").read_text("utf-8")))
        expected = provenance["sha256"][path.suffix]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is no result of a benchmark, such as table.csv or table.npz with "
            f"table.json beside it: {error!r}"
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        raise ValueError(
            f"{path} is not what was written, but changed or cut since: its SHA-256 is "
            f"{found}, not {expected}. {REPAIR}"
        )
    return content, provenance


def save_table(out: Path) -> pd.DataFrame:
    """Write table.csv, table.npz and table.json, from all units in the folder."""
    table, paths = pd.DataFrame(), None
    # Anew while another run adds units, so that the last one to write knows all.
    while paths != (paths := sorted((out / "units").glob("*.npz"))):
        facts = json.loads((out / "configuration.json").read_text("utf-8"))
        if not (units := read_units(paths, facts["images"])):
            continue
        values = values_of(units)
        table = table_of(units, values)
        text = table.to_csv(index=False, float_format="%.5g", lineterminator="\n")
        kept = "psnr", "ssim", LOGARITHM
        rounded = {name: values[name].astype("float16") for name in kept}
        rounded["accuracy"] = values["accuracy"].astype(bool)
        rounded["units"] = np.array([unit["unit"] for unit in units])
        content = {".csv": text.encode(), ".npz": packed(**rounded)}
        commands = sorted((out / "commands").glob("*.txt"), key=os.path.getmtime)
        facts |= {
            "commands": [path.read_text("utf-8") for path in commands],
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "inverted": f"test digits 0 to {facts['images'] - 1}",
            "settings": f"by test digits {VALIDATION.start} to {VALIDATION.stop - 1}",
            "training_seeds": sorted({int(unit["unit"][1]) for unit in units}),
            "seconds": "processor seconds, summed over cores",
            "rows": len(table),
            "sha256": {k: hashlib.sha256(v).hexdigest() for k, v in content.items()},
        }
        content[".json"] = (json.dumps(facts, indent=1) + "\n").encode()
        for suffix, data in content.items():
            put(out / f"table{suffix}", data, replace=True)
    return table


def read_units(paths: list[Path], images: int) -> list[dict]:
    """All units that are done, whole and finite, in the order of the plans' axes."""
    units = {path: arrays_in(path) for path in paths}
    units = {
        path: unit for path, unit in units.items() if unit
    }  # the others: no answer
    for path, unit in units.items():
        if problem := problem_of(unit, path, images):
            text = "remove it, and give the same command again"
            raise ValueError(f"{path} {problem}: {text}")
    return sorted(units.values(), key=place_of)


def problem_of(unit: dict, path: Path, images: int) -> str:
    """Why a file is not the unit its name says, or its numbers are none."""
    key, needed = unit.get("unit", ()), {"setting", "outputs", *OF_IMAGES, *SECONDS}
    named = len(key) == len(UNIT) and Unit(*key).path(path.parents[1]) == path
    if not named or needed - unit.keys():
        return "is not the result that its name says"
    if any(unit[name].shape != (images,) for name in OF_IMAGES):
        return f"is not about {images} images"
    known = needed - {"setting"} - set(ONCE if key[1] != "0" else ())
    spoiled = [name for name in sorted(known) if not np.isfinite(unit[name]).all()]
    return f"has a NaN or infinity in {', '.join(spoiled)}" if spoiled else ""


def place_of(unit: dict) -> tuple:
    """Where a unit stands: networks, taps and methods in the order of the plans."""
    network, seed, layer, method, pairs = unit["unit"]
    place = list(TAPS).index(network), list(DENSE).index(layer)
    return *place, -int(pairs), list(METHODS).index(method), int(seed)


def values_of(units: list[dict]) -> dict[str, np.ndarray]:
    """Each measure of each image, (units, images)."""
    values = {name: np.stack([unit[name] for unit in units]) for name in OF_IMAGES}
    errors = np.maximum(values["mse"], 1e-10)  # at most 100 dB, also where equal
    relative = np.maximum(values["relative_output_error"], 1e-16)  # less is rounding
    return values | {"psnr": -10 * np.log10(errors), LOGARITHM: np.log10(relative)}


def table_of(units: list[dict], values: dict[str, np.ndarray]) -> pd.DataFrame:
    """For each measure: each training seed, all of them, and all against the rival."""
    facts = pd.DataFrame([unit["unit"] for unit in units], columns=UNIT)
    facts = facts.astype({"pairs": int})
    for name in ("setting", "outputs", *SECONDS):
        facts[name] = [unit[name].item() for unit in units]
    yardstick = facts.groupby(["network", "tap"])["forward_seconds"].transform("median")
    yardstick = yardstick.replace(0, np.nan)  # too short a thing for a coarse clock
    facts["forward_passes"] = facts["seconds_per_target"] / yardstick
    facts["fit_forward_passes"] = facts["fit_seconds"] / yardstick
    place = {key: n for n, key in enumerate(facts[UNIT].itertuples(index=False))}
    rows = []

    def add(unit, metric, numbers, versus=""):
        low, high = interval(numbers)
        row = {"images": numbers.shape[-1], "seeds": len(np.atleast_2d(numbers))}
        row |= {"metric": metric, "mean": numbers.mean(), "low": low, "high": high}
        rows.append(unit | row | {"versus": versus})

    for _, group in facts.groupby(["network", "tap", "method", "pairs"], sort=False):
        keys = group[UNIT].assign(method=RIVAL).itertuples(index=False)
        rivals = [place.get(key) for key in keys]
        shared = {**group.iloc[0], **group[COSTS].mean(), "training_seed": "all"}
        for metric in METRICS:
            own = values[metric][group.index]
            for unit, numbers in zip(group.to_dict("records"), own):
                add(unit, metric, numbers)
            add(shared, metric, own)
            if None not in rivals and shared["method"] != RIVAL:
                add(shared, metric, own - values[metric][rivals], RIVAL)
    return pd.DataFrame(rows)[COLUMNS]


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Say between which numbers the mean lies, by a bootstrap (Efron 1979).

    Images are drawn again, with replacement, each with its answers for all training
    seeds. Seeds are too few to be drawn again, which would make the interval too
    short: the deviation of their mean is drawn from Student's t instead.

    Parameters
    ----------
    values : array (N,) or (S, N)
        A number of each image, or training seed and image; for a comparison, the
        differences between two methods.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    low, high : float
        Of one seed they speak of that network, of several of any trained like these.

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
            f"(S, N) for S training seeds, and got {values.shape}: {values}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    seeds, images = values.shape
    # For one seed, the percentile interval of scipy.stats.bootstrap: a test compares.
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
    equal = np.full(images, 1 / images)
    return np.random.default_rng(SEED).multinomial(images, equal, RESAMPLES) / images
