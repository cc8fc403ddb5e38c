"""Graded assignments: hand out, grade, look; book/instructors.md shows how."""

from __future__ import annotations

import argparse
import csv
import json
import os
import secrets
import sys
from pathlib import Path

from tools.assignments import cases, grade, judges, notebooks
from tools.environment import ROOT


def read_key(path: Path | None) -> bytes:
    """The course's key from its file; the practice key, which all know, without one."""
    if path is None:
        return cases.PRACTICE
    if not path.is_file():
        raise ValueError(
            f"there is no key at {path}: make one with new-key --key {path}"
        )
    if len(key := path.read_bytes().strip()) < 16:
        raise ValueError(f"{path} holds no key of at least 16 characters")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise ValueError(f"others may read the key: chmod 600 {path}")
    return key


def new_key(path: Path | None) -> None:
    if path is None:
        raise ValueError("say where the key shall lie: new-key --key ~/course.key")
    path = path.expanduser().resolve()
    if path.is_relative_to(ROOT):
        raise ValueError(f"keep the key outside of the repository, not at {path}")
    if path.exists():
        raise ValueError(f"{path} exists: a course keeps its key to its end")
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
    ) as f:
        f.write(secrets.token_hex(24) + "\n")
    print(
        f"The key of your course is in {path}. Keep a copy: all cases follow from it."
    )


def read_students(path: Path | None) -> list[str]:
    """Names: one a line, or the first column of a CSV with a header."""
    if path is None:
        return []
    text = path.read_text("utf-8-sig")
    if path.suffix == ".csv":
        names = [
            row[0].strip() for row in list(csv.reader(text.splitlines()))[1:] if row
        ]
    else:
        names = [line.strip() for line in text.splitlines()]
    names = [name for name in names if name and not name.startswith("#")]
    for name in names:
        if "/" in name or "\\" in name or name.startswith(".") or len(name) > 100:
            raise ValueError(f"{name!r} in {path} cannot be the name of a folder")
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise ValueError(
            f"{path} names {', '.join(twice) + ' twice' if twice else 'nobody'}"
        )
    return names


def release(name: str, key: bytes, students: list[str], into: Path) -> None:
    name = judges.load(name).NAME
    for student in students:
        case = cases.Case(key, name, student)
        notebooks.write(notebooks.released(case), into / student / f"{name}.ipynb")
    print(f"{len(students)} notebooks of {name} in {into}, a folder for each student")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.assignments",
        description=__doc__,
    )
    what = ["new-key", "release", "grade", "board", "nbgrader", "practice", "sample"]
    parser.add_argument("what", choices=what)
    parser.add_argument(
        "assignment", nargs="?", help="a number or a name: 1, 01_measures"
    )
    parser.add_argument(
        "--key", type=Path, help="the course's key, a file that you keep"
    )
    parser.add_argument("--students", type=Path, help="a list of names, one a line")
    parser.add_argument("--submissions", type=Path, help="one folder for each student")
    parser.add_argument("--into", type=Path, help="where to write")
    parser.add_argument("--jobs", type=int, default=1, help="submissions at once")
    parser.add_argument("--accept", action="append", default=[], metavar="STUDENT")
    parser.add_argument("--final", action="store_true", help="board: the hidden half")
    parser.add_argument("--cell-seconds", type=float, default=60)
    arguments = parser.parse_args()
    try:
        act(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


def act(given) -> None:
    if given.what == "new-key":
        return new_key(given.key)
    if given.what == "practice":
        return notebooks.release_practice()
    if given.what == "sample":
        from tools.assignments import sample

        return sample.try_it(given.into or ROOT / "_build" / "course", given.jobs)
    if given.what == "nbgrader":
        return nbgrader_course(given.into or Path("course"), given.key)
    if given.what == "board":
        return show_board(given.assignment or "6", given.into, given.final)
    needed = ["assignment", "students", "into"]
    needed += ["submissions"] if given.what == "grade" else []
    for name in needed:
        if getattr(given, name) is None:
            raise ValueError(f"{given.what} needs --{name}; see --help")
    key, students = read_key(given.key), read_students(given.students)
    if given.what == "release":
        return release(given.assignment, key, students, given.into)
    if not given.submissions.is_dir():
        raise ValueError(f"there is no folder {given.submissions}")
    settings = {"jobs": max(1, given.jobs), "accept": given.accept}
    settings["cell_seconds"] = given.cell_seconds
    where = given.submissions, given.into
    results = grade.grade(given.assignment, key, students, *where, **settings)
    show(results, given.into)


def nbgrader_course(into: Path, key: Path | None) -> None:
    """Make a folder in which nbgrader's own commands work, with our judge."""
    for name in judges.NAMES:
        notebooks.write(
            notebooks.source(name), into / "source" / name / f"{name}.ipynb"
        )
    stubs = notebooks.settings().ClearSolutions
    (into / "nbgrader_config.py").write_text(
        f"""import sys

sys.path.insert(0, {str(ROOT)!r})
from tools.assignments.nbgrader_hook import PREPROCESSORS

c = get_config()
c.ClearSolutions.code_stub = {stubs.code_stub!r}
c.ClearSolutions.text_stub = {stubs.text_stub!r}
c.Autograde.autograde_preprocessors = PREPROCESSORS
c.RunAndJudge.key_file = {(str(key.resolve()) if key else "")!r}
""",
        "utf-8",
    )
    print(f"{into}: nbgrader generate_assignment, autograde ... work in this folder")


def show_board(name: str, into: Path | None, final: bool) -> None:
    """Write board.csv from the results of a grading, and print it."""
    from tools.assignments import report

    if into is None or not (into / "results").is_dir():
        raise ValueError("board needs --into, the folder into which was graded")
    paths = sorted((into / "results").glob("*.json"))
    results = {path.stem: json.loads(path.read_text("utf-8")) for path in paths}
    rows = report.board(name, results, final)
    with open(into / "board.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "student", "psnr", "matched", "read_by_evaluator"])
        writer.writerows(rows)
    for rank, student, mean, reached, read in rows:
        print(
            f"{rank:3}  {student:20} {mean:6.2f} dB  {reached} matched, read {read:.2f}"
        )


def show(results: dict, into: Path) -> None:
    from tools.assignments import report

    for student, result in results.items():
        notes = "; ".join(result["flags"] or result["remarks"])
        print(f"{student:20} {report.total(result):5.1f}  {notes[:90]}")
    print(f"\nIn {into}: grades.csv; feedback, a page each; alike.csv, who is alike")


if __name__ == "__main__":
    main()
