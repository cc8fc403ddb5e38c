"""Grades a class: runs what was handed in, keeps each result, writes marks and pages.

Each student's result is a file of its own, written at once when it is there. So a
grading that was killed goes on where it was, and nothing is graded twice.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import tempfile
from pathlib import Path

from tqdm import tqdm

from tools.assignments import judges, notebooks, report, wall
from tools.assignments.cases import Case
from tools.assignments.run import run


def grade_one(case: Case, submission, package: Path, owners: dict, **limits) -> dict:
    """Grade one notebook; ``owners`` are the tags of all students, with their names."""
    judge = judges.load(case.assignment)
    read = notebooks.restored(submission, notebooks.released(case))
    found = run(read.cells, judge, judge.given(case), package, **limits)
    return judged(case, submission, read, found, owners)


def judged(case: Case, submission, read, found, owners: dict) -> dict:
    judge = judges.load(case.assignment)
    flags = []
    for tag in notebooks.case_in(submission) - {case.tag}:
        flags.append(
            f"this notebook was given to {owners.get(tag, 'nobody on the list')}"
        )
    flags += [f"tried: {what}" for what in found.refused if suspicious(what)]
    remarks = [*read.remarks]
    remarks += [f"not available: {w}" for w in found.refused if not suspicious(w)][:3]
    tasks = {}
    for task, mark in judge.judge(found.answers, case).items():
        asked = [name for name in judge.ASKS if name.split(".")[0] == task]
        why = [found.missing[name] for name in asked if name in found.missing]
        said = f"{mark.said} ({why[0]})" if why and not mark.points else mark.said
        tasks[task] = [float(mark.points), judge.TASKS[task], said]
    return {
        "tasks": tasks,
        "flags": list(dict.fromkeys(flags))[:4],
        "remarks": remarks,
        "errors": [f"{cell}: {text}" for cell, text in found.errors][:12],
        "explanation": read.explanation,
        "code": notebooks.code_of(submission),
        "picture": report.picture(judge, found.answers, case),
        "seconds": round(found.seconds, 1),
        "board": judge.board(found.answers, case) if hasattr(judge, "board") else {},
    }


def suspicious(refused: str) -> bool:
    """Whether something was reached for that is there, and is not the student's."""
    event, _, path = refused.partition(" ")
    return event.startswith(("open", "os.", "shutil.", "glob.")) and os.path.exists(
        path
    )


def nothing(case: Case, why: str) -> dict:
    """The result of somebody of whom there is nothing to grade."""
    tasks = judges.load(case.assignment).TASKS
    empty = {"flags": [], "errors": [], "explanation": "", "code": "", "picture": ""}
    marks = {task: [0.0, of, why] for task, of in tasks.items()}
    return empty | {"tasks": marks, "remarks": [why], "seconds": 0.0}


def grade(
    name, key, students, submissions: Path, into: Path, jobs=1, accept=(), **limits
):
    """Grade ``submissions``, one folder for each student; write below ``into``."""
    name = judges.load(name).NAME
    cases = {student: Case(key, name, student) for student in students}
    folders = [place.name for place in sorted(submissions.iterdir()) if place.is_dir()]
    strangers = [one for one in folders if one not in cases and not one.startswith(".")]
    cases |= {student: Case(key, name, student) for student in strangers}
    owners = {case.tag: student for student, case in cases.items()}
    (into / "results").mkdir(parents=True, exist_ok=True)
    results, waiting = {}, {}
    for student, case in cases.items():
        kept = into / "results" / f"{student}.json"
        try:
            path, remarks = notebooks.find(submissions / student, name)
            mark = hashlib.sha256(path.read_bytes() + case.tag.encode()).hexdigest()
            if (result := stored(kept, mark)) is not None:
                results[student] = result
                continue
            waiting[student] = notebooks.read(path), remarks, mark
        except notebooks.Unreadable as error:
            results[student] = nothing(case, str(error)) | {"mark": ""}
            store(kept, results[student])
    with tempfile.TemporaryDirectory(prefix="grader-") as folder:
        folder = Path(folder).resolve()
        package = wall.copy_of_package(folder)
        if waiting:
            print(f"wall around submissions: {wall.MEANING[wall.best(package)]}")
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            futures = {}
            for student, (submission, _, _) in waiting.items():
                judge = judges.load(name)
                read = notebooks.restored(
                    submission, notebooks.released(cases[student])
                )
                given = judge.given(cases[student])
                one = pool.submit(run, read.cells, judge, given, package, **limits)
                futures[one] = student, read
            for future in tqdm(
                concurrent.futures.as_completed(futures), "graded", len(futures)
            ):
                student, read = futures[future]
                submission, remarks, mark = waiting[student]
                case = cases[student]
                result = judged(case, submission, read, future.result(), owners)
                result["remarks"] = remarks + result["remarks"]
                results[student] = result | {"mark": mark}
                store(into / "results" / f"{student}.json", results[student])
    for student in accept:
        if student not in results:
            raise ValueError(
                f"nothing of {student!r} was graded; --accept takes a name"
            )
        results[student]["accepted"] = True
        store(into / "results" / f"{student}.json", results[student])
    for student in strangers:
        results[student]["remarks"].insert(0, "is not on the list of students")
    results = {student: results[student] for student in cases}
    reference = notebooks.code_of(notebooks.reference(Case(key, name, "reference")))
    report.write(name, results, reference, into)
    return results


def stored(path: Path, mark: str) -> dict | None:
    """A result that is there already, of this very notebook."""
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return result if result.get("mark") == mark else None


def store(path: Path, result: dict) -> None:
    """Write all of it or nothing."""
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(result, indent=1), "utf-8")
    os.replace(fresh, path)
