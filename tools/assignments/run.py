"""Starts a submission behind the wall, holds it to its limits, reads what it says."""

from __future__ import annotations

import base64
import io
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tools.assignments import wall
from tools.environment import SETTINGS

INSIDE = Path(__file__).with_name("inside.py")
CELL_SECONDS, ALL_SECONDS = 60, 240
GRACE = 8  # seconds for a cell to end after its time, and for Python to start
START_SECONDS = 90
MOST_BYTES = 64_000_000  # of everything that a submission says
MEMORY = 8 * 2**30  # bytes of address space; TensorFlow reserves some and uses few
PROCESSES = 400  # threads count, and TensorFlow starts some dozens
RUNS = 3  # a cell that ends the whole process is left out, and the rest run again


@dataclass
class Run:
    """What came back from a submission: proposals, and what went wrong."""

    answers: dict = field(default_factory=dict)  # name -> float64 array or text
    missing: dict = field(default_factory=dict)  # name -> why there is no answer
    changed: set = field(default_factory=set)  # asks in which an input was changed
    refused: list = field(default_factory=list)  # what the trip wire stopped
    errors: list = field(default_factory=list)  # (cell, message)
    done: bool = False
    last: str = ""  # the cell that ran last
    seconds: float = 0.0


def run(cells, judge, given, package: Path, **limits) -> Run:
    """Run named cells [(name, source)] and ask what a judge wants to see.

    ``judge`` has ``ASKS`` (name -> expression) and ``PRELUDE`` (source); ``given`` are
    the arrays that both may use. A cell that cannot be stopped, or ends the process,
    is left out and everything else is run once more.
    """
    cells, lost, started = list(cells), [], time.perf_counter()
    for _ in range(RUNS):
        found = run_once(cells, judge, given, package, **limits)
        if found.done or found.last not in dict(cells):
            break
        lost.append((found.last, "ended the whole run, which was repeated without it"))
        cells = [(name, source) for name, source in cells if name != found.last]
    if not found.done and not found.answers:
        found.errors.append(("all", f"the run ended early, in {found.last or 'start'}"))
    found.errors = lost + found.errors
    found.seconds = time.perf_counter() - started
    return found


def run_once(cells, judge, given, package, cell_seconds=CELL_SECONDS, **limits) -> Run:
    kind, uid = wall.best(package), next(wall.UIDS)
    with tempfile.TemporaryDirectory(prefix="submission-") as folder:
        folder = Path(folder).resolve()
        work = Path("/submission") if kind == "jail" else folder / "work"
        (folder / "work").mkdir()
        for place in folder, folder / "work":
            place.chmod(0o711 if place == folder else 0o777)
        job = {
            "cells": cells,
            "asks": judge.ASKS,
            "prelude": judge.PRELUDE,
            "cell_seconds": cell_seconds,
            "walled": kind != "none",
            "roots": roots(kind, package, work),
            "limits": {
                "RLIMIT_AS": limits.get("memory", MEMORY),
                "RLIMIT_NPROC": PROCESSES + threads_of(kind, uid),
                "RLIMIT_FSIZE": 100_000_000,
                "RLIMIT_CORE": 0,
                "RLIMIT_CPU": 4 * ALL_SECONDS,
            },
        }
        file = io.BytesIO()
        np.savez(file, job=json.dumps(job), **given)
        (folder / "job").write_bytes(file.getvalue())
        (folder / "root").mkdir()
        words = wall.command(kind, folder / "root", package, uid)
        words += [sys.executable, "-s", "-c", INSIDE.read_text("utf-8")]
        with open(folder / "job", "rb") as stdin:
            process = subprocess.Popen(
                words,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder / "work",
                env=environment(work, package),
                start_new_session=True,
            )
        try:
            return listen(process, cell_seconds, limits.get("seconds", ALL_SECONDS))
        finally:
            end(process, uid if kind.startswith("user") else None)


def roots(kind: str, package: Path, work: Path) -> list[str]:
    own = [str(work), "/proc", "/sys", "/dev", *(["/tmp"] if kind == "jail" else [])]
    return wall.visible(package) + own


def environment(work: Path, package: Path) -> dict:
    """Nothing of ours but what Python needs, and the settings that repeat numbers."""
    kept = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH")
    home = ("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "IPYTHONDIR", "KERAS_HOME")
    return (
        {name: os.environ[name] for name in kept if name in os.environ}
        | SETTINGS
        | dict.fromkeys((*home, "MPLCONFIGDIR"), str(work))
        | {"PYTHONPATH": os.pathsep.join([str(package.parent), *wall.search_path()])}
        | {"PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "agg", "PYTHONUTF8": "1"}
    )


def threads_of(kind: str, uid: int) -> int:
    """Threads that count against the limit already: those of the same user."""
    if not Path("/proc/self").exists():
        return 0
    uid = uid if os.geteuid() == 0 and kind != "none" else os.getuid()
    count = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            count += len(list((place / "task").iterdir())) * (
                place.stat().st_uid == uid
            )
        except OSError:  # it has ended
            pass
    return count


def listen(process, cell_seconds: float, all_seconds: float) -> Run:
    """Read messages, one a line, until the end or the end of its time."""
    found, rest, heard = Run(), b"", 0
    now = time.monotonic()
    last, deadline = now + all_seconds, now + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not found.done and heard < MOST_BYTES:
            left = min(last, deadline) - time.monotonic()
            if left <= 0 or not selector.select(left):
                break
            if not (chunk := os.read(process.stdout.fileno(), 1 << 20)):
                break
            heard += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if understand(line, found) == "cell":
                    deadline = time.monotonic() + cell_seconds + GRACE
    return found


def understand(line: bytes, found: Run) -> str:
    """Enter one message; drop what a submission may have written by itself."""
    try:
        message = json.loads(line)
        kind = next(iter(message))
        if kind == "cell":
            found.last = str(message["cell"])[:80]
        elif kind == "refused":
            found.refused = [*found.refused, str(message["refused"])[:300]][:20]
        elif kind == "error":
            cell, text = message["error"]
            found.errors = [*found.errors, (str(cell)[:80], str(text)[:300])][:60]
        elif kind == "missing":
            name, text = message["missing"]
            found.missing[str(name)[:80]] = str(text)[:300]
        elif kind == "answer":
            found.answers[message["answer"]] = value_of(message)
            if message["changed"]:
                found.changed.add(message["answer"])
        elif kind == "done":
            found.done = True
        return kind
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration):
        return ""
    except RecursionError:
        return ""


def value_of(message: dict):
    if "text" in message:
        text = message["text"]
        return text if isinstance(text, str) else [str(line) for line in text]
    shape = [int(n) for n in message["shape"]]
    data = base64.b64decode(message["data"], validate=True)
    return np.frombuffer(data, "<f8").reshape(shape).copy()


def end(process, uid: int | None) -> None:
    """End a submission and all that it has started."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass
    process.stdout.close()
    process.wait()
    for _ in range(20 if uid else 0):  # it may start more while we look
        mine = [p for p in Path("/proc").glob("[0-9]*") if owner(p) == uid]
        for place in mine:
            try:
                os.kill(int(place.name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        if not mine:
            break


def owner(place: Path) -> int:
    try:
        return place.stat().st_uid
    except OSError:
        return -1
