"""What every stored notebook must be, seen without running it.

That its outputs are those of a fresh run is checked by nbval and conftest.py.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import nbformat
import pytest

from conftest import forgiven
from tools.environment import ROOT
from tools.run_notebooks import (
    HIDDEN,
    METADATA,
    QUIZ,
    all_notebooks,
    hide_answers,
    install_line,
)

LINES, WIDTH = 14, 79
LOCAL_PATH = re.compile(r"/(home|root|tmp|Users|private|work)/|site-packages|[A-Z]:\\")
EXEMPTING_TAG = "nbval-ignore-output"
FORBIDDEN_MARK = re.compile(r"#\s*(NBVAL_|PYTEST_VALIDATE_)|nbval-skip")


@pytest.fixture(params=all_notebooks(), ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [
        (number, cell)
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip()
    ]


def has_tag(cell, tag):
    return tag in cell.metadata.get("tags", [])


def text_of(output):
    """Everything in an output that a reader could read."""
    parts = [output.get("text", ""), *output.get("traceback", [])]
    parts += [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return "\n".join("".join(part) for part in parts)


def test_every_notebook_is_collected_by_a_plain_pytest_run():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q"]
    command += ["--ignore-glob=*.py"]  # importing TensorFlow would take seconds
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    collected = {line.partition("::")[0] for line in listing.splitlines()}
    expected = {path.relative_to(ROOT).as_posix() for path in all_notebooks()}
    assert expected and expected <= collected


def test_the_notebook_is_valid_and_says_nothing_about_the_machine(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata == METADATA


def test_the_cells_were_run_in_order_from_an_empty_kernel(notebook):
    counts = [cell.execution_count for _, cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_cells_fit_on_the_page(notebook):
    for number, cell in code_cells(notebook):
        lines = cell.source.splitlines()
        hidden = has_tag(cell, HIDDEN) or cell.id == "case"  # a page of numbers
        most = 22 if "nbgrader" in cell.metadata else LINES  # with their marks
        assert hidden or len(lines) <= most, f"cell {number} has {len(lines)} lines"
        widest = max(lines, key=len)
        assert len(widest) <= WIDTH, f"cell {number}: {widest}"


def test_the_source_of_a_quiz_is_hidden_with_its_answers(notebook):
    for number, cell in code_cells(notebook):
        if has_tag(cell, HIDDEN):
            assert QUIZ in cell.source, f"cell {number} hides something else"
        hidden = cell.copy()
        hidden.metadata = nbformat.from_dict(dict(cell.metadata))
        hide_answers(hidden)
        assert hidden.metadata == cell.metadata, f"cell {number}: run `make notebooks`"


def assigned(source: str) -> set[str]:
    """Names that a cell gives a value to, outside of its functions."""
    names, waiting = set(), [ast.parse(source)]
    inner = (ast.Lambda, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif not isinstance(node, inner):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            waiting += ast.iter_child_nodes(node)
    return names


def test_no_later_cell_changes_what_an_explorer_shows(notebook):
    """After the whole chapter has run, a reader still moves its sliders."""
    cells = [(n, c.source) for n, c in code_cells(notebook) if "%pip" not in c.source]
    for number, source in cells:
        if "widgets.explorer(" in source:
            nodes = list(ast.walk(ast.parse(source)))
            names = [node for node in nodes if isinstance(node, ast.Name)]
            own = {node.arg for node in nodes if isinstance(node, ast.arg)}
            own |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
            used = {node.id for node in names} - own
            later = [assigned(text) for place, text in cells if place > number]
            changed = used & set().union(*later)
            assert not changed, f"cell {number} shows {changed}, which change later"


def test_few_cells_are_exempt_from_comparison(notebook):
    cells = code_cells(notebook)
    exempt = [number for number, cell in cells if has_tag(cell, EXEMPTING_TAG)]
    assert len(exempt) <= max(2, len(cells) // 6), f"exempt cells: {exempt}"
    for number, cell in cells:
        marks = cell.source + " ".join(cell.metadata.get("tags", []))
        assert not FORBIDDEN_MARK.search(marks), f"cell {number} hides from nbval"


def test_every_figure_is_described_for_those_who_cannot_see_it(notebook):
    for number, cell in code_cells(notebook):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if "image/png" in kinds:
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt.split()) >= 3, f"cell {number} has no alt text"
        for tag in re.findall(r"<img\b[^>]*>", "".join(map(text_of, cell.outputs))):
            assert re.search(r"\balt=[\"'][^\"']", tag), f"cell {number}: {tag[:60]}"


def test_every_figure_has_a_caption_and_a_name_of_its_own():
    names = []
    for path in all_notebooks():
        for number, cell in code_cells(nbformat.read(path, as_version=4)):
            pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
            if not pictures and "ni-explorer" not in "".join(
                map(text_of, cell.outputs)
            ):
                continue
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            where = f"cell {number} of {path.stem}"
            captioned = len(figure.get("caption", "").split()) >= 3
            assert captioned, f"{where} has no caption"
            names += [figure["name"]] if "name" in figure else []
    assert len(set(names)) == len(names), "a name is used twice"


def test_no_unplanned_error_and_no_message_is_stored(notebook):
    for number, cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.get("name") != "stderr", f"cell {number} stores stderr"
            if output.output_type == "error":
                assert has_tag(cell, "raises-exception"), f"cell {number} failed"


def test_no_path_of_the_author_s_machine_is_stored(notebook):
    for number, cell in code_cells(notebook):
        for text in map(text_of, cell.outputs):
            found = LOCAL_PATH.search(text)
            assert not found, (
                f"cell {number}: {text[max(0, found.start() - 40) :][:80]}"
            )


@pytest.mark.parametrize(
    ("stored", "fresh", "same"),
    [
        ("MSE 0.123, 4 of 64", "MSE 0.124, 4 of 64", True),
        ("MSE 0.123, 4 of 64", "MSE 0.125, 4 of 64", False),
        ("MSE 0.123, 4 of 64", "MSE 0.123, 5 of 64", False),
        ("[9.9e-04 1.0]", "[1.0e-03 1.1]", True),
        ("[9.9e-04 1.0]", "[9.9e-03 1.0]", False),
        ("-0.0 and 12.3%", "0.0 and 12.4%", True),
        (" 9.99  2.0", "10.00  2.1", True),
        ("the 0.5 share", "a 0.5 share", False),
        ("numpy 1.26.4", "numpy 1.26.5", False),
        ("<td>1.50</td>", "<td>1.51</td>", True),
        ("error  9.99", "error 10.00", True),
    ],
)
def test_the_last_digit_may_move_by_one_and_nothing_else(stored, fresh, same):
    assert (forgiven(stored, fresh) == fresh) == same


def test_the_first_cell_installs_the_package_on_colab_and_shows_nothing(notebook):
    _, first = code_cells(notebook)[0]
    assert f"    {install_line()}\n" in first.source, "run `make notebooks`"
    assert '"google.colab" in sys.modules' in first.source
    assert first.outputs == []
    order = re.findall(r"(?m)^(?:import|from) (keras|netinvert)", first.source)
    assert order[0] == "netinvert", "before Keras: it silences TensorFlow's start"


def test_the_repository_s_address_is_set_in_one_place_only():
    address = install_line().rpartition("+")[2].removeprefix("https://")
    command = ["git", "grep", "--no-index", "--exclude-standard", "-lF", address]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    others = [path for path in listing.split() if not path.endswith(".ipynb")]
    assert others == ["_config.yml"]
