"""make explains itself where it cannot install, and harms nothing."""

import os
import shutil
import subprocess
import sys

import pytest

from tools.environment import ROOT

NEEDED = ["Makefile", "requirements.txt", "binder/requirements.txt"]
NEEDED += ["constraints.txt", "pyproject.toml"]


@pytest.fixture
def clone(tmp_path):
    """A folder in which pip can download nothing."""
    (tmp_path / "binder").mkdir()
    for name in NEEDED:
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(folder, *words):
    return subprocess.run(
        ["make", "html", f"PYTHON={sys.executable}", *words],
        cwd=folder,
        env=os.environ | {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(not shutil.which("make"), reason="the readme has a way without")
def test_without_a_network_make_says_what_to_do_and_spoils_nothing(clone):
    run = make(clone)
    assert run.returncode != 0
    assert "pip needs a network" in run.stdout and "pip.log" in run.stdout
    assert "ERROR" not in run.stdout + run.stderr.replace("Error 1", "")
    assert not (clone / ".venv" / ".installed").exists(), "half an environment"

    # The same after a pull: what was installed stays, and still counts as whole.
    ready, kept = clone / ".venv" / ".installed", clone / ".venv" / "kept"
    ready.touch()
    kept.touch()
    os.utime(ready, (0, 0))
    run = make(clone)
    assert run.returncode != 0 and "pip needs a network" in run.stdout
    assert ready.exists() and kept.exists()


@pytest.mark.skipif(not shutil.which("make"), reason="the readme has a way without")
def test_a_python_that_is_too_old_is_named_with_the_way_to_name_another(clone):
    old = clone / "python"
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; "
        'sys.version_info = (3, 9); sys.version = "3.9.1 x"; '
        'exec(sys.argv[1])\' "$2"\n'
    )
    old.chmod(0o755)
    run = make(clone, f"PYTHON={old}")
    assert "this is 3.9.1. Try: make PYTHON=python3.11" in run.stderr
    assert not (clone / ".venv").exists()
