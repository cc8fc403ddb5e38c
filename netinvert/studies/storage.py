"""The folder of a benchmark: files that are there whole or not at all, and claims."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
import zipfile
import zlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from netinvert.data import checksum_of

try:
    import fcntl
except ImportError:  # Windows: two runs at once may do the same work twice
    fcntl = None

FIRST_NAMES = {"units", "networks", "configuration.claim", "configuration.partial"}
VERSIONS = ("netinvert", "tensorflow", "keras", "numpy", "scipy")


def kept(path: Path, train: Callable, build: Callable) -> tuple[keras.Model, float]:
    """Return a trained network and the seconds of training, which happens once.

    Parameters
    ----------
    path : Path
        Where its weights are, or will be.
    train, build : callable
        Give the trained network, and an untrained one of the same form.

    Returns
    -------
    model : keras.Model
    seconds : float
        Processor seconds.
    """
    with claimed(path):
        if not path.exists():
            started = time.process_time()
            weights = train().get_weights()
            seconds = time.process_time() - started
            with whole(path, "wb") as file:
                np.savez(file, seconds, *weights)
    seconds, *weights = arrays_in(path).values()
    model = build()
    model.set_weights(weights)
    return model, float(seconds)


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file that a run has left, by name."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    # A flipped bit in a zip file may look like anything, encryption included.
    except (
        EOFError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it, and give the same command again"
        ) from error


@contextlib.contextmanager
def claimed(path: Path, wait: bool = True):
    """Claim a file that is to be written; yields whether another run holds it not.

    The operating system ends the claim when the process ends, however it ends.
    """
    with open(path.with_suffix(".claim"), "w") as file:
        mine = True
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                mine = False
        yield mine


@contextlib.contextmanager
def whole(path: Path, mode: str = "w"):
    """Open a file that is in its place once it is complete, and not before."""
    partial = path.with_suffix(".partial")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with open(partial, mode, **text) as file:
        yield file
    partial.replace(path)


def check_folder(out: Path, images: int) -> None:
    """Make the folder, or refuse one whose content does not belong to this run."""
    path, now = out / "configuration.json", configuration(images)
    found = {one.name for one in out.iterdir()} if out.is_dir() else set()
    # Another run may be making the folder at this moment.
    if out.is_file() or not (path.exists() or found <= FIRST_NAMES):
        raise ValueError(
            f"{out} holds something else than a benchmark; choose another --out"
        )
    for name in ("units", "networks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    with claimed(path):
        if not path.exists():
            with whole(path) as file:
                json.dump(now, file, indent=1)
    try:
        then = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}), so nobody knows how its results were made: "
            "choose another --out"
        ) from error
    if then != now:
        different = [
            f"{key} {then.get(key)!r} there, {now.get(key)!r} now"
            for key in sorted(then.keys() | now.keys())
            if then.get(key) != now.get(key)
        ]
        raise ValueError(
            f"{out} belongs to another configuration ({'; '.join(different)}): its "
            "results cannot be mixed with new ones; choose another --out"
        )


def configuration(images: int) -> dict:
    """What must be equal to compare results: images, judge, versions, machine."""
    return {
        "images": images,
        "evaluator": f"sha256 {checksum_of('evaluator.npz')}",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in VERSIONS},
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
    }


def processor() -> str:
    """The processor's model, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(": ")[1] for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):  # other systems than Linux, other processors
        return platform.processor() or platform.machine()


def note_command(out: Path, command: str) -> None:
    """Add a command to those that made the results in the folder."""
    path = out / "commands.txt"
    with claimed(path):
        noted = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if command not in noted:
            with open(path, "a", encoding="utf-8") as file:
                file.write(command + "\n")
