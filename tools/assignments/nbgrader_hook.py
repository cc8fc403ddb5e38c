"""Our run and our judge where nbgrader would execute a notebook and count asserts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nbformat.v4 import new_output
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    NbGraderPreprocessor,
    SaveAutoGrades,
)
from traitlets import Unicode

from tools.assignments import cases, grade, judges, notebooks, wall


class RunAndJudge(NbGraderPreprocessor):
    """Give every grade cell the points that the judge gave to its task."""

    key_file = Unicode(help="the course's key; empty: the practice case").tag(
        config=True
    )

    def preprocess(self, notebook, resources):
        """Run behind the wall, and write points where nbgrader looks for them."""
        about = resources["nbgrader"]
        name, student = judges.load(about["assignment"]).NAME, about["student"]
        case = cases.practice(name)  # nbgrader gives all students the same notebook
        if self.key_file and notebooks.case_in(notebook) != {case.tag}:
            key = Path(self.key_file).read_bytes().strip()
            case = cases.Case(key, name, student)
        with tempfile.TemporaryDirectory(prefix="grader-") as folder:
            package = wall.copy_of_package(Path(folder).resolve())
            result = grade.grade_one(case, notebook, package, {})
        for cell in notebook.cells:
            task = (notebooks.name_of(cell) or "").removesuffix("_check")
            if cell.cell_type != "code" or task not in result["tasks"]:
                continue
            points, _, said = result["tasks"][task]
            points = 0 if result["flags"] else points
            words = "; ".join([said, *result["flags"]])
            cell.outputs = [new_output("stream", name="stdout", text=words + "\n")]
            value = {"text/plain": str(points)}
            cell.outputs += [
                new_output("execute_result", value, execution_count=1)
                if points
                else new_output(
                    "error", ename="NoPoints", evalue=said, traceback=[said]
                )
            ]
        return notebook, resources


PREPROCESSORS = [RunAndJudge, SaveAutoGrades, AssignLatePenalties, CheckCellMetadata]
