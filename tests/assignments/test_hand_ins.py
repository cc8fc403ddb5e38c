"""What students hand in, as it really comes; and a class that is graded twice."""

import csv
import json
import os
import stat

import nbformat
import pytest

from tests.assignments.helpers import KEY, case_of, reference
from tools.assignments import __main__ as tool
from tools.assignments import grade, notebooks, report, sample

NAME = "01_measures"
CASE = case_of(NAME)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "ada"
    place.mkdir()
    return place


def hand_in(folder, name=f"{NAME}.ipynb", notebook=None):
    notebooks.write(notebook or reference(CASE), folder / name)
    return folder / name


def test_no_notebook_is_named_with_what_was_there(folder):
    (folder / "answers.docx").write_text("")
    with pytest.raises(notebooks.Unreadable, match=r"no notebook.*answers\.docx"):
        notebooks.find(folder, NAME)


def test_a_renamed_notebook_is_graded_and_remarked(folder):
    path = hand_in(folder, "measures final (2).ipynb")
    found, remarks = notebooks.find(folder, NAME)
    assert found == path and "should be 01_measures.ipynb" in remarks[0]


def test_of_two_notebooks_the_one_with_the_right_name_counts(folder):
    hand_in(folder, "old.ipynb")
    path = hand_in(folder)
    found, remarks = notebooks.find(folder, NAME)
    assert found == path and "old.ipynb was not graded" in remarks[0]


def test_two_that_were_renamed_are_not_guessed_at(folder):
    hand_in(folder, "a.ipynb"), hand_in(folder, "b.ipynb")
    with pytest.raises(notebooks.Unreadable, match="which counts"):
        notebooks.find(folder, NAME)


def test_lms_folders_below_the_student_are_searched(folder):
    path = hand_in(folder / NAME)
    hand_in(folder / ".ipynb_checkpoints")
    assert notebooks.find(folder, NAME) == (path, [])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no notebook"),
        (b"\x89PNG\r\n", "no notebook"),
        (b"[1, 2]", "no cells"),
        (b'{"cells": 7}', "no cells"),
        (b"[" * 200_000, "no notebook"),
    ],
)
def test_what_is_no_notebook_is_said_so(folder, content, said):
    (folder / f"{NAME}.ipynb").write_bytes(content)
    with pytest.raises(notebooks.Unreadable, match=said):
        notebooks.read(folder / f"{NAME}.ipynb")


def test_a_huge_file_is_refused_before_it_is_read(folder):
    path = folder / f"{NAME}.ipynb"
    with open(path, "wb") as file:
        file.truncate(notebooks.MOST_BYTES + 1)
    with pytest.raises(notebooks.Unreadable, match="clear its outputs"):
        notebooks.read(path)


def test_windows_line_ends_and_a_mark_of_byte_order_change_nothing(folder):
    path = hand_in(folder)
    text = path.read_text("utf-8").replace("\\n", "\\r\\n").replace("\n", "\r\n")
    path.write_bytes(text.encode("utf-8-sig"))
    release = notebooks.released(CASE)
    read = notebooks.restored(notebooks.read(path), release)
    assert read == notebooks.restored(reference(CASE), release)


def restored(notebook):
    return notebooks.restored(notebook, notebooks.released(CASE))


def test_deleted_and_reordered_cells_come_back_in_their_order():
    whole = restored(reference(CASE))
    notebook = reference(CASE)
    checks = [
        c for c in notebook.cells if (notebooks.name_of(c) or "").endswith("_check")
    ]
    notebook.cells = [c for c in notebook.cells[::-1] if c not in checks]
    found = restored(notebook)
    assert found.cells == whole.cells
    assert "cells were missing: psnr_check" in found.remarks[0]
    assert any("another order" in remark for remark in found.remarks)


def test_a_cell_of_one_s_own_stays_behind_its_neighbor():
    notebook = reference(CASE)
    place = [notebooks.name_of(c) for c in notebook.cells].index("psnr")
    own = nbformat.v4.new_code_cell("helper = 1")
    notebook.cells.insert(place, own)
    names = [name for name, _ in restored(notebook).cells]
    assert names.index("case + 1" if "case + 1" in names else "psnr_text + 1") == (
        names.index("psnr") - 1
    )


def test_outputs_are_not_looked_at_and_order_is_remarked(folder):
    notebook = reference(CASE)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(reversed(code), start=1):
        cell.execution_count = count
        cell.outputs = [nbformat.v4.new_output("stream", text="16 of 16")]
    read = notebooks.read(hand_in(folder, notebook=notebook))
    assert "16 of 16" not in json.dumps(read)
    assert "out of order" in restored(read).remarks[0]


def test_another_kernel_is_remarked():
    notebook = reference(CASE)
    notebook.metadata["kernelspec"] = {"name": "ir", "display_name": "R"}
    assert "made for the kernel ir" in restored(notebook).remarks[0]


def test_a_notebook_that_lost_its_marks_runs_as_it_stands():
    notebook = reference(CASE)
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = nbformat.from_dict({}), f"c{number}"
    found = restored(notebook)
    assert "no cell carries its mark" in found.remarks[0]
    assert [source for _, source in found.cells][2:] == [
        cell.source for cell in notebook.cells if cell.cell_type == "code"
    ]


def test_the_key_is_private_outside_of_the_repository_and_made_once(tmp_path):
    path = tmp_path / "keys" / "course.key"
    tool.new_key(path)
    assert len(tool.read_key(path)) >= 32
    with pytest.raises(ValueError, match="exists"):
        tool.new_key(path)
    with pytest.raises(ValueError, match="outside of the repository"):
        tool.new_key(tool.ROOT / "course.key")
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        with pytest.raises(ValueError, match="chmod 600"):
            tool.read_key(path)


@pytest.mark.parametrize("name", ["../eve", "a/b", ".hidden", "x" * 101])
def test_a_student_s_name_is_the_name_of_a_folder(tmp_path, name):
    (tmp_path / "list.txt").write_text(f"ada\n{name}\n")
    with pytest.raises(ValueError, match="cannot be the name"):
        tool.read_students(tmp_path / "list.txt")


def test_a_page_of_feedback_shows_what_was_written_and_runs_none_of_it():
    result = grade.nothing(CASE, "<script>alert(1)</script>")
    result["explanation"] = "<img src=x onerror=alert(1)>"
    page = report.page(NAME, "<b>ada", result)
    assert "<script" not in page and "<img src=x" not in page and "<b>ada" not in page


def test_a_spreadsheet_takes_no_remark_for_a_formula():
    assert report.plain("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert report.plain("") == "" and report.plain(-1.5) == "-1.5"


def test_renaming_everything_does_not_make_a_copy_another_program():
    code = notebooks.code_of(reference(CASE))
    renamed = (
        code.replace("found_from", "suche").replace("error", "fehler") + "\n# mine"
    )
    (ratio, _, _), *_ = report.likeness({"one": code, "other": renamed})
    assert ratio >= report.ALIKE


@pytest.mark.course
def test_the_sample_class_gets_what_it_should_and_is_graded_once(tmp_path, capsys):
    results = sample.try_it(tmp_path / "course", jobs=2)
    points = {student: report.total(result) for student, result in results.items()}
    assert points == {"reference": 16, "blank": 0, "half": 6, "cheat": 0, "endless": 13}
    with open(tmp_path / "course/marks/grades.csv", encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert rows["half"]["psnr"] == "3.0" and rows["half"]["max_score"] == "20"
    alike = (tmp_path / "course/marks/alike.csv").read_text().splitlines()[1]
    assert "THE REFERENCE,reference,yes" in alike


@pytest.mark.course
def test_a_killed_grading_goes_on_and_a_flagged_hand_in_is_accepted(tmp_path):
    submitted, into = tmp_path / "submitted", tmp_path / "marks"
    students = ["ada", "bob smith"]
    hand_in(submitted / "ada")
    hand_in(submitted / "bob smith")  # a copy of hers
    arguments = NAME, KEY, students, submitted, into
    first = grade.grade(*arguments)
    assert report.total(first["ada"]) == 16 and report.total(first["bob smith"]) == 0
    assert first["bob smith"]["flags"] == ["this notebook was given to ada"]

    (into / "results" / "bob smith.json").unlink()  # killed before it was written
    kept = into / "results" / "ada.json"
    before = kept.stat().st_mtime_ns
    again = grade.grade(*arguments, accept=["bob smith"])
    assert kept.stat().st_mtime_ns == before
    assert report.total(again["bob smith"]) > 0
    assert report.total(grade.grade(*arguments)["bob smith"]) > 0
