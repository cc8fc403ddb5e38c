"""The folder of a benchmark: a file is there whole or not at all, and then it stays."""

from __future__ import annotations

import io
import json
import os
import platform
import time
import uuid
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from netinvert.data import checksum_of

PACKAGES = ("netinvert", "tensorflow", "keras", "numpy", "scipy")


def put(path: Path, content: bytes, replace: bool = False) -> None:
    """Write a file whole, under another name first; what is there stays, by default."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        if replace:
            partial.replace(path)
        else:
            os.link(partial, path)  # a rename might replace what came meanwhile
    except FileExistsError:
        pass
    finally:
        partial.unlink(missing_ok=True)


def packed(*arrays: np.ndarray, **named: np.ndarray) -> bytes:
    """The content of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, *arrays, **named)
    return buffer.getvalue()


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file that a run has left, by name."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # a flipped bit in a zip file may look like anything
        raise ValueError(
            f"{path} is damaged ({error}): delete it, and give the same command again"
        ) from error


def kept(path: Path, train: Callable, build: Callable) -> tuple[keras.Model, float]:
    """A network trained once, its weights kept in a file; and processor seconds."""
    if not path.exists():
        started = time.process_time()
        weights = train().get_weights()
        put(path, packed(time.process_time() - started, *weights))
    seconds, *weights = arrays_in(path).values()  # also of a run that was faster
    model = build()
    model.set_weights(weights)
    return model, float(seconds)


def check_folder(out: Path, images: int) -> None:
    """Make the folder, or refuse one whose content does not belong to this run."""
    path, now = out / "configuration.json", made_with(PACKAGES, images=images)
    found = [one.name for one in out.iterdir()] if out.is_dir() else [path.name]
    foreign = not all(name.startswith(path.name) for name in found)
    if out.is_file() or (foreign and path.name not in found):
        raise ValueError(
            f"{out} holds something else than a benchmark; choose another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    put(path, json.dumps(now, indent=1).encode())  # before anything else is there
    try:
        then = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): choose another --out"
        ) from error
    if different := sorted(k for k in then.keys() | now if then.get(k) != now.get(k)):
        parts = [f"{k} {then.get(k)!r} there, {now.get(k)!r} now" for k in different]
        raise ValueError(
            f"{out} belongs to another configuration ({'; '.join(parts)}), whose "
            "results cannot be mixed with new ones: choose another --out"
        )
    for name in ("commands", "networks", "units"):
        (out / name).mkdir(exist_ok=True)


def made_with(packages: tuple[str, ...], **facts) -> dict:
    """What must be equal to compare results: these facts, judge, versions, machine."""
    return facts | {
        "evaluator": f"sha256 {checksum_of('evaluator.npz')}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
    }


def processor() -> str:
    """The processor's model, as Linux names it, or else what Python knows of it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name\t: ")]
    return [*names, platform.processor() or platform.machine()][0]
