"""Does the grader grade? References, wrong hand-ins, and what a release gives away.

What is marked ``course`` runs in ``make course-test`` and every night.
"""

import re

import nbformat
import pytest

from tests.assignments.helpers import KEY, case_of, points, reference
from tests.assignments.tricks import ANYWHERE, VICTIMS
from tests.assignments.wrong import WRONG
from tools.assignments import cases, grade, judges, notebooks, wall
from tools.environment import ROOT
from tools.run_notebooks import address

course = pytest.mark.course
every = pytest.mark.parametrize("name", judges.NAMES)
FEW = {"01_measures"}  # run in `make test`


def mostly(name):
    return pytest.param(name, marks=[] if name in FEW else course)


mostly_one = pytest.mark.parametrize("name", [mostly(n) for n in judges.NAMES])


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grader")
    for place in [folder, *folder.parents]:
        if place.stat().st_uid == folder.stat().st_uid and place != place.parent:
            place.chmod(place.stat().st_mode | 0o011)
    return wall.copy_of_package(folder)


def graded(case, notebook, package, **limits):
    owners = {case_of(case.assignment, s).tag: s for s in ("ada", "bob")}
    return grade.grade_one(case, notebook, package, owners, **limits)


def kept(result):
    return {task: points for task, (points, _, _) in result["tasks"].items()}


@mostly_one
def test_the_reference_gets_every_point_behind_the_wall(name, package):
    case = case_of(name)
    result = graded(case, reference(case), package)
    assert kept(result) == judges.load(name).TASKS
    assert not result["flags"] and not result["remarks"] and not result["errors"]
    assert result["seconds"] < 60


@course
@every
@pytest.mark.parametrize("student", ["bob", "eve w. lamb"])
def test_the_reference_gets_every_point_for_other_students(name, student, package):
    case = case_of(name, student)
    assert kept(graded(case, reference(case), package)) == judges.load(name).TASKS


@course
@every
def test_the_reference_gets_every_point_in_thirty_cases(name):
    lost = {}
    for number in range(30):
        case = case_of(name, f"student {number}")
        if (found := points(reference(case), case)) != judges.load(name).TASKS:
            lost[number] = found
    assert not lost


@mostly_one
def test_what_was_given_out_gets_nothing(name):
    case = case_of(name)
    assert set(points(notebooks.released(case), case).values()) == {0}


def wrong_ones():
    for name, mistakes in WRONG.items():
        for what in mistakes:
            yield pytest.param(name, what, marks=course, id=f"{name}: {what}")


@pytest.mark.parametrize(("name", "what"), list(wrong_ones()))
def test_a_mistake_costs_its_tasks_and_no_others(name, what):
    case = case_of(name)
    cells, left = WRONG[name][what]
    found = points(reference(case, **cells), case)
    for task, of in judges.load(name).TASKS.items():
        if task in left and left[task] is None:
            assert found[task] < of, task
        else:
            assert found[task] == left.get(task, of), task


def tricks():
    quick = ("reads the sources by TensorFlow's own calls",)
    for name in judges.NAMES:
        for what in ANYWHERE:
            marks = [] if name in FEW and what in quick else course
            yield pytest.param(name, what, marks=marks, id=f"{name}: {what}")


@pytest.mark.parametrize(("name", "what"), list(tricks()))
def test_a_trick_costs_its_task_and_no_other(name, what, package):
    case, (cell, task) = case_of(name), VICTIMS[name]
    if "TensorFlow" in what and wall.best(package) == "none":
        pytest.skip("there is no wall on this system, as the instructors' page says")
    source = ANYWHERE[what].replace("{root}", str(ROOT))
    source = source.replace("{folder}", str(package.parent.parent))
    result = graded(case, reference(case, **{cell: source}), package, cell_seconds=12)
    assert kept(result) == judges.load(name).TASKS | {task: 0}, result


@course
@every
def test_a_copied_notebook_is_held_back_and_names_its_owner(name, package):
    case = case_of(name, "bob")
    result = graded(case, reference(case_of(name, "ada")), package)
    assert "this notebook was given to ada" in result["flags"]


@every
def test_locked_cells_are_put_back(name):
    case = case_of(name)
    release, handed_in = notebooks.released(case), reference(case)
    for cell in handed_in.cells:
        if not notebooks.is_solution(cell):
            cell.source = "changed = True"
    read = notebooks.restored(handed_in, release)
    assert "changed = True" not in dict(read.cells).values()
    assert "locked cells were changed and put back" in read.remarks[0]


@every
def test_a_release_holds_no_solution_no_output_and_no_key(name):
    release = notebooks.released(case_of(name))
    text = "\n".join(cell.source for cell in release.cells)
    for cell in notebooks.source(name).cells:
        for _, block in re.findall(
            r"### BEGIN (\w+).*?\n(.*?)### END", cell.source, re.S
        ):
            for line in map(str.strip, block.splitlines()):
                assert len(line) < 16 or line not in text, line
    assert KEY.decode() not in text and KEY.hex() not in text
    assert not any(cell.get("outputs") for cell in release.cells)
    assert all(
        cell.metadata.get("editable") is False
        for cell in release.cells
        if not notebooks.is_solution(cell)
    )


@every
def test_cases_differ_and_repeat(name):
    judge = judges.load(name)
    found = [
        judge.case_cell(case_of(name, student)) for student in ("ada", "bob", "ada")
    ]
    assert found[0] == found[2] != found[1]
    other = cases.Case(b"another key of a course", name, "ada")
    assert judge.case_cell(other) != found[0]


@every
def test_the_notebook_in_the_book_is_what_release_makes(name):
    stored = nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)
    fresh = notebooks.released(cases.practice(name))
    assert stored == fresh, "run: python -m tools.assignments practice"
    assert address() in stored.cells[1].source, "the line that Colab runs first"


@every
def test_a_release_runs_to_its_first_open_task_and_says_that_it_is_open(name):
    space = {"__name__": "__main__"}
    with pytest.raises(NotImplementedError, match="this task is still open"):
        for _, source in notebooks.restored(
            notebooks.released(cases.practice(name)),
            notebooks.released(cases.practice(name)),
        ).cells:
            exec(source.replace("%pip", "pass  # "), space)
    assert {"ni", "case"} <= set(space)


@every
def test_the_source_is_the_practice_case_with_twenty_points(name):
    cells = {notebooks.name_of(cell): cell for cell in notebooks.source(name).cells}
    judge = judges.load(name)
    assert cells["case"].source == judge.case_cell(cases.practice(name))
    worth = {
        mark.removesuffix("_check"): cell.metadata.nbgrader.points
        for mark, cell in cells.items()
        if cell.metadata.nbgrader.grade
    }
    assert worth == judge.TASKS | {"explain": judges.EXPLANATION}
    assert sum(worth.values()) == 20
    assert f"{judge.MINUTES} minutes" in cells["intro"].source
