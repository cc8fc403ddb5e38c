"""The plan of the house: who may import whom, and how large a room may be."""

import ast
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.environment import ROOT

PACKAGE = ROOT / "netinvert"
WINGS = {"fibers", "methods", "studies"}
FLOORS = {"front": 0, "fibers": 1, "methods": 1, "studies": 2}
MOST_LINES, MANY_LINES = 500, 400


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
ROOMS = {name: path for name, path in FILES.items() if path != PACKAGE / "__init__.py"}


def wing(module: str) -> str:
    """The wing of a room, or the front."""
    return next((part for part in module.split(".")[1:2] if part in WINGS), "front")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                known = whole in FILES or f"{whole}.__init__" in FILES
                yield whole if known else node.module


def arrows() -> dict[str, set[str]]:
    """Which rooms each room imports."""
    found = {}
    for name, path in ROOMS.items():
        wanted = {n if n in FILES else f"{n}.__init__" for n in imported(path)}
        found[name] = {room for room in wanted if room in FILES} - {name}
    return found


def test_nobody_imports_from_a_floor_above_or_from_the_wing_next_door():
    wrong = [
        f"{room} imports {other}"
        for room, others in arrows().items()
        for other in others
        if wing(room) != wing(other) and FLOORS[wing(room)] <= FLOORS[wing(other)]
    ]
    assert not wrong, "; ".join(wrong)


def test_nobody_imports_the_package_s_front_door():
    assert not [room for room, others in arrows().items() if "netinvert" in others]
    assert "netinvert.__init__" not in set().union(*arrows().values())


def test_no_arrow_leads_back():
    """Take away the rooms that import nothing that is left, until none is left."""
    left = arrows()
    while left:
        done = {room for room, others in left.items() if not others & left.keys()}
        assert done, f"a circle among {sorted(left)}"
        left = {room: others for room, others in left.items() if room not in done}


def test_only_chapters_and_commands_open_the_studies():
    doors = [*PACKAGE.glob("*.py"), *(ROOT / "tools").glob("*.py")]
    assert not [p for p in doors if any("netinvert.studies" in n for n in imported(p))]


def test_metrics_stand_alone():
    names = set(imported(PACKAGE / "metrics.py"))
    assert not [name for name in names if name.startswith("netinvert")]


def test_certificates_are_checked_with_nothing_but_numpy():
    path = PACKAGE / "certificates.py"
    others = {name.partition(".")[0] for name in imported(path)}
    assert others - sys.stdlib_module_names == {"numpy"}
    code = (
        f"import runpy, sys; names = runpy.run_path({str(path)!r})\n"
        "assert callable(names['verify']) and 'keras' not in sys.modules\n"
        "assert 'netinvert' not in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


@pytest.mark.parametrize("name", FILES)
def test_a_room_is_small_enough_to_be_read(name):
    lines = len(FILES[name].read_text("utf-8").splitlines())
    if lines > MANY_LINES:
        warnings.warn(f"{name} has {lines} lines, not {MANY_LINES}", stacklevel=1)
    assert lines <= MOST_LINES
