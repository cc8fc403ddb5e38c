"""A chapter as its reader runs it: in a real JupyterLab, with a kernel and a slider."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.browser import find_chromium, open_page
from tools.environment import ROOT

CHAPTER = "02_why_not.ipynb"
PATIENCE = 120  # seconds; the chapter takes about 20 alone
NOTEBOOK = "[...jupyterapp.shell.widgets('main')].find(one => one.content?.widgets)"
READY = f"{NOTEBOOK}?.sessionContext.session?.kernel?.status === 'idle'"
RUN_ALL = f"""
(jupyterapp.shell.activateById({NOTEBOOK}.id),
 jupyterapp.commands.execute("notebook:run-all-cells").then(() => null))
"""
FORGET = f"""
{NOTEBOOK}.content.widgets.forEach(cell => {{
  cell.model.outputs?.clear();
  if (cell.model.outputs) cell.model.executionCount = null;
}})
"""
COMPLAINTS = f"""
{NOTEBOOK}.content.widgets.flatMap(cell => cell.model.outputs?.toJSON() ?? [])
  .filter(output => output.name === "stderr" || output.output_type === "error")
  .map(output => output.text ?? output.evalue)
"""
NOT_RUN = f"""
{NOTEBOOK}.content.widgets.filter(cell => cell.model.type === "code"
  && !cell.model.executionCount).map(cell => cell.model.sharedModel.source)
"""
SHOW_THE_SLIDER = f"""
(() => {{
  const content = ({NOTEBOOK}).content;
  const place = content.widgets.findIndex(
    cell => /widgets\\.(explorer|scrubber)\\(/.test(cell.model.sharedModel.source));
  content.activeCellIndex = place;
  return content.scrollToItem(place);
}})()
"""
SLIDER = "document.querySelector('.ni-explorer .noUi-handle')"
PICTURE = "document.querySelector('.ni-explorer img')"


@contextlib.contextmanager
def lab(folder):
    """Address of a JupyterLab that serves a folder, without the variables of ours."""
    quiet = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0"]
    command += ["--allow-root", "--IdentityProvider.token=", "--ServerApp.password="]
    command += [
        "--expose-app-in-browser",
        "--LabApp.news_url=",
        f"--notebook-dir={folder}",
    ]
    log = tempfile.NamedTemporaryFile("w", suffix=".log", dir=folder)
    server = subprocess.Popen(
        command,
        env={
            **quiet,
            "PYTHONPATH": str(ROOT),
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
        },
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and server.poll() is None:
            said = Path(log.name).read_text(encoding="utf-8")
            if found := re.search(r"http://(127\.0\.0\.1|localhost):\d+", said):
                yield found[0]
                return
            time.sleep(0.2)
        pytest.fail(f"JupyterLab did not start: {said[-1000:]}")
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE)
        log.close()


def wait_until(page, condition: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < deadline, f"still not: {condition}"
        time.sleep(0.2)


def test_a_chapter_runs_in_jupyterlab_quietly_and_its_slider_moves(tmp_path):
    chromium = find_chromium()
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("no Chromium found")
    shutil.copy(ROOT / "notebooks" / CHAPTER, tmp_path)
    with lab(tmp_path) as address, open_page(chromium) as page:
        page.look(1280, 900, "light")
        page.visit(f"{address}/lab/tree/{CHAPTER}")
        wait_until(page, f"window.jupyterapp && {READY}")
        page.evaluate(FORGET)
        page.socket.settimeout(PATIENCE)
        page.evaluate(RUN_ALL)
        assert page.evaluate(COMPLAINTS) == []
        assert page.evaluate(NOT_RUN) == []
        page.evaluate(SHOW_THE_SLIDER)
        wait_until(page, SLIDER)
        before = page.evaluate(f"{PICTURE}.src")
        deadline = time.monotonic() + PATIENCE
        while page.evaluate(f"{PICTURE}?.src ?? {before!r}") == before:
            assert time.monotonic() < deadline, "the slider moves nothing"
            page.evaluate(f"{SLIDER}?.focus()")
            time.sleep(2)  # Lab is still drawing, and takes the focus away again
            if page.evaluate(f"document.activeElement === {SLIDER}"):
                page.press("ArrowRight")
                time.sleep(2)
        assert page.evaluate(COMPLAINTS) == []
