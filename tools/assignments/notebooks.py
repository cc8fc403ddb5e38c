"""From the source notebook to what a student gets, and from what is handed in to a run.

nbgrader does what it can do: its cell metadata, clearing solutions, hidden tests,
rubrics and outputs, locking cells and noting their checksums.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbgrader.preprocessors import (
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)
from traitlets.config import Config

from tools.assignments import judges
from tools.assignments.cases import Case, practice
from tools.environment import ROOT

FOLDER = ROOT / "notebooks" / "assignments"
SOURCES = FOLDER / "source"
MOST_BYTES = 256_000_000  # of a notebook; outputs can be large
STUB = "# YOUR CODE HERE\nraise NotImplementedError('this task is still open')"


def source(name: str):
    return nbformat.read(SOURCES / f"{name}.ipynb", as_version=4)


def name_of(cell) -> str | None:
    """The mark of a cell in nbgrader's metadata."""
    return cell.get("metadata", {}).get("nbgrader", {}).get("grade_id")


def is_solution(cell) -> bool:
    return bool(cell.get("metadata", {}).get("nbgrader", {}).get("solution"))


def settings() -> Config:
    config = Config()
    config.ClearSolutions.code_stub = {"python": STUB}
    config.ClearSolutions.text_stub = "*Your answer here.*"
    return config


def released(case: Case):
    """Return the notebook that a student gets: their case, no solution, no output."""
    notebook, config = source(case.assignment), settings()
    for cell in notebook.cells:
        if name_of(cell) == "case":
            cell.source = judges.load(case.assignment).case_cell(case)
        cell.metadata.pop("mystnb", None)
    resources = {"nbgrader": {}}
    steps = (ClearSolutions, ClearHiddenTests, ClearMarkScheme, ClearOutput, LockCells)
    for step in (*steps, ComputeChecksums):
        notebook, resources = step(config=config).preprocess(notebook, resources)
    notebook.metadata["netinvert"] = {"assignment": case.assignment, "case": case.tag}
    return notebook


def write(notebook, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def release_practice() -> None:
    """Write the notebooks that stand in the book: the public practice case."""
    for name in judges.NAMES:
        write(released(practice(name)), FOLDER / f"{name}.ipynb")


class Unreadable(ValueError):
    """There is nothing to grade, and why."""


def find(folder: Path, name: str) -> tuple[Path, list[str]]:
    """Find a student's notebook, whatever it was renamed to; also what to remark."""
    found = [
        path
        for path in sorted(folder.rglob("*.ipynb"))
        if ".ipynb_checkpoints" not in path.parts
    ]
    if not found:
        others = ", ".join(sorted(p.name for p in folder.rglob("*") if p.is_file()))
        raise Unreadable(f"no notebook was handed in (found: {others or 'nothing'})")
    right = [path for path in found if path.name == f"{name}.ipynb"]
    if len(right) == 1:
        rest = [path.name for path in found if path != right[0]]
        return right[0], [f"besides, {', '.join(rest)} was not graded"] if rest else []
    if len(found) > 1:  # of several, the one that says it is this assignment
        marked = [path for path in found if f'"{name}"'.encode() in tail(path)]
        if len(marked) != 1:
            names = ", ".join(str(path.relative_to(folder)) for path in found)
            raise Unreadable(f"{len(found)} notebooks, and which counts? {names}")
        found = marked
    return found[0], [f"graded is {found[0].name}; its name should be {name}.ipynb"]


def tail(path: Path, size: int = 4000) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read()


def read(path: Path):
    """Read a notebook that somebody handed in; Unreadable says what is wrong."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise Unreadable(
            f"{path.name} has {size / 1e6:.0f} MB, and {MOST_BYTES / 1e6:.0f} are "
            "allowed: clear its outputs and hand it in again"
        )
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path.name} is no notebook: {error!s:.100}") from None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        older = isinstance(content, dict) and "worksheets" in content
        if not older:
            raise Unreadable(f"{path.name} is JSON, but no notebook: it has no cells")
        content = nbformat.convert(nbformat.from_dict(content), 4)
    cells = []
    for cell in content["cells"]:
        if not isinstance(cell, dict):
            continue
        kind, text = cell.get("cell_type"), cell.get("source", "")
        text = "".join(text) if isinstance(text, list) else str(text)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        metadata = (
            cell.get("metadata") if isinstance(cell.get("metadata"), dict) else {}
        )
        if not isinstance(metadata.get("nbgrader", {}), dict):
            metadata = {}
        kept = {"cell_type": kind, "source": text, "metadata": metadata}
        kept |= {"id": cell.get("id"), "count": cell.get("execution_count")}
        cells.append(nbformat.from_dict(kept))
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return nbformat.from_dict({"cells": cells, "metadata": metadata})


class Restored(NamedTuple):
    """A submission as it is run: named code cells in the order of the release."""

    cells: list  # (name, source)
    explanation: str
    remarks: list


def restored(submission, release) -> Restored:
    """Put the student's cells between the locked ones, which come from the release.

    What a student added stays behind the cell that it stood behind. Remarks say what
    was not as it was given out.
    """
    remarks, behind, own, last = [], {None: []}, {}, None
    known = {name_of(cell): cell for cell in release.cells}
    by_id = {cell.id: name_of(cell) for cell in release.cells}
    order, changed = [], []
    for cell in submission.cells:
        name = name_of(cell) or by_id.get(cell.id)
        if name in known and name not in own:
            own[name], last = cell, name
            order.append(name)
            if not is_solution(known[name]) and cell.source != known[name].source:
                changed.append(name)
        else:
            behind.setdefault(last, []).append(cell)
    missing = [name for name in known if name not in own]
    if changed:
        remarks.append(f"locked cells were changed and put back: {', '.join(changed)}")
    if missing and own:
        remarks.append(f"cells were missing: {', '.join(missing)}")
    if order != [name for name in known if name in own]:
        remarks.append("cells stood in another order, and were put back in theirs")
    counts = [c.get("count") for c in submission.cells if c.cell_type == "code"]
    counts = [count for count in counts if isinstance(count, int)]
    if counts != sorted(counts):
        remarks.append("last run out of order; here it ran from top to bottom")
    language = submission.metadata.get("kernelspec", {})
    language = language.get("name", "") if isinstance(language, dict) else ""
    if language and "python" not in language.lower():
        remarks.append(f"made for the kernel {language}; it ran in Python")
    if not own:
        remarks.append("no cell carries its mark any more: it ran as it stands")
        cells = [cell for cell in release.cells if name_of(cell) in ("setup", "case")]
        merged = [(name_of(cell), cell) for cell in cells]
        merged += [(f"cell {n}", c) for n, c in enumerate(submission.cells, start=1)]
    else:
        merged = [(f"before {n}", cell) for n, cell in enumerate(behind[None], start=1)]
        for name, cell in known.items():
            mine = own.get(name) if is_solution(cell) else cell
            merged += [(name, mine)] if mine is not None else []
            extra = enumerate(behind.get(name, []), start=1)
            merged += [(f"{name} + {n}", one) for n, one in extra]
    cells = [
        (n, c.source) for n, c in merged if c.cell_type == "code" and c.source.strip()
    ]
    explanation = own["explain"].source if "explain" in own else ""
    return Restored(cells, explanation, remarks)


def case_in(submission) -> set[str]:
    """The tags that a notebook carries: in its metadata and in its case cell."""
    note = submission.metadata.get("netinvert", {})
    tags = (
        {str(note.get("case"))} if isinstance(note, dict) and "case" in note else set()
    )
    for cell in submission.cells:
        first, _, rest = cell.source.partition('case = "')
        if rest and not first.strip():
            tags.add(rest.partition('"')[0])
    return tags


def code_of(submission) -> str:
    """What a student wrote, to compare it with what others wrote."""
    return "\n".join(
        cell.source
        for cell in submission.cells
        if cell.cell_type == "code" and (is_solution(cell) or not name_of(cell))
    )


def reference(case: Case):
    """The release with the solutions in it, as the best student hands it in."""
    notebook = copy.deepcopy(released(case))
    answers = {name_of(cell): cell.source for cell in source(case.assignment).cells}
    for cell in notebook.cells:
        if is_solution(cell):
            lines = answers[name_of(cell)].split("\n")
            cell.source = "\n".join(line for line in lines if "### " not in line)
    return notebook
