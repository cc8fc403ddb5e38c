"""A sample class of five, to try everything on: ``make course``."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from tools.assignments import grade, judges, notebooks, report
from tools.assignments.cases import Case

STUDENTS = {
    "reference": "solves everything",
    "blank": "hands the notebook in as it was given out",
    "half": "solves the first two tasks",
    "cheat": "replaces what is compared with, and looks for the key",
    "endless": "never ends",
}
CHEAT = """
import glob, os
import numpy.testing
ni.metrics.psnr = lambda *pictures: np.full(len(pictures[0]), 99.0)
numpy.testing.assert_allclose = lambda *words, **settings: None
found = [name for place in ("/home", "/root", "{here}")
         for name in glob.glob(place + "/*")]
"""


def change(notebook, student: str, here: Path):
    """Turn the reference into what this student hands in."""
    answers = [cell for cell in notebook.cells if notebooks.is_solution(cell)]
    if student == "half":
        for cell in answers[2:]:
            cell.source = notebooks.STUB
    if student == "cheat":
        for cell in answers[:-1]:
            cell.source = "pass"
        answers[0].source = CHEAT.format(here=here)
    if student == "endless":
        answers[-2].source = "while True:\n    pass"
    return notebook


def try_it(into: Path, jobs: int, name: str = "1") -> dict:
    """Release, hand in and grade, all below one folder."""
    shutil.rmtree(into, ignore_errors=True)
    key, name = secrets.token_bytes(24), judges.load(name).NAME
    for student in STUDENTS:
        case = Case(key, name, student)
        given = notebooks.released(case)
        notebooks.write(given, into / "released" / student / f"{name}.ipynb")
        made = given if student == "blank" else notebooks.reference(case)
        made = change(made, student, into.parent)
        notebooks.write(made, into / "submitted" / student / f"{name}.ipynb")
    print(f"{len(STUDENTS)} notebooks released and handed in below {into}")
    folders = into / "submitted", into / "marks"
    results = grade.grade(
        name, key, list(STUDENTS), *folders, jobs=jobs, cell_seconds=15
    )
    for student, what in STUDENTS.items():
        points = report.total(results[student])
        print(f"{student:10} {points:4.1f} of 16  {what}")
        for line in results[student]["flags"]:
            print(f"{'':10} held back: {line}")
    print(f"marks: {into / 'marks/grades.csv'}; pages: {into / 'marks/feedback'}")
    return results
