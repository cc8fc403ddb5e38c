"""The benchmark's command line, and its loop."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from tqdm.auto import tqdm

from netinvert.benchmark import __doc__ as description
from netinvert.benchmark.contestants import METHODS
from netinvert.benchmark.measure import finish
from netinvert.benchmark.plans import DENSE, FULL, SMALL, TAPS, Unit, units_of
from netinvert.benchmark.results import load, save_table
from netinvert.benchmark.storage import arrays_in, check_folder, note_command


def run(units: list[Unit], images: int, out: Path, command: str) -> None:
    """Do the units that are not done yet, and write the table of all that are.

    Parameters
    ----------
    units : list of Unit
    images : int
        How many of the test digits are inverted: the first ones.
    out : Path
        Folder of the results. It is made if it is not there.
    command : str
        How the run was started, for the record.

    Raises
    ------
    ValueError
        If the folder holds something else, or results of another number of images,
        other versions or another machine.
    """
    check_folder(out, images)
    note_command(out, command)
    with tqdm(total=len(units), unit="result", leave=False) as bar:
        # What another run is at is left to it, until nothing else is left.
        for wait in (False, True):
            for unit in units:
                bar.set_description(f"{unit.network} {unit.tap}: {unit.method}")
                finish(unit, images, out, wait)
                bar.update(sum(one.path(out).exists() for one in units) - bar.n)
    save_table(out)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; what is not known is refused with what there is."""
    parser = argparse.ArgumentParser(
        prog="python -m netinvert.benchmark", description=description
    )
    parser.add_argument(
        "--full", action="store_true", help="some two hours, not a minute"
    )
    for option, known in (
        ("networks", TAPS),
        ("taps", DENSE),
        ("methods", METHODS),
    ):
        parser.add_argument(
            f"--{option}",
            nargs="+",
            choices=list(known),
            metavar="NAME",
            help="any of: " + ", ".join(known),
        )
    parser.add_argument("--out", type=Path, help="folder of the results")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Run the benchmark from the command line."""
    options = parsed(arguments)
    size = FULL if options.full else SMALL
    axes = {
        name: getattr(options, name)
        for name in ("networks", "taps", "methods")
        if getattr(options, name)
    }
    out = options.out or Path("benchmark-full" if options.full else "benchmark-small")
    units = units_of([plan | axes for plan in size["plans"]], size["seeds"])
    try:
        run(units, size["images"], out, command_of(options.full, axes))
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on from here.")
    if not any(arrays_in(unit.path(out)) for unit in units):
        sys.exit(
            "None of these methods has an answer for these taps "
            "(second-order search, for one, needs a tap of few outputs)."
        )
    print(summary(load(out / "table.csv")))
    print(f"\nEverything, with its provenance: {out / 'table.csv'}")


def command_of(full: bool, axes: dict[str, list[str]]) -> str:
    """The command, for the record, which needs no folder of this machine."""
    words = ["python", "-m", "netinvert.benchmark", *(["--full"] if full else [])]
    for name, values in axes.items():
        words += [f"--{name}", *values]
    return shlex.join(words)


def summary(rows: list[dict]) -> str:
    """A table to read: PSNR with its interval, over all training seeds."""
    lines, title = [], ""
    for row in rows:
        if (row["metric"], row["training_seed"], row["versus"]) != ("psnr", "all", ""):
            continue
        if title != (title := f"{row['network']}, {row['tap']}, {row['pairs']} pairs"):
            lines += ["", title]
        lines.append(
            f"  {row['method']:26} {row['mean']:6.2f} dB  "
            f"({row['low']:.2f} to {row['high']:.2f})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
