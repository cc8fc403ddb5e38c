"""However a kernel is started, TensorFlow's log puts no pink box under a cell."""

import os

import nbformat
from jupyter_client.manager import start_new_kernel

from tools.environment import ROOT, SETTINGS

SEARCH = "ni.invert(forward, forward(digits[:2]), ni.GradientInversion(steps=2))"


def test_a_bare_kernel_shows_no_message_in_a_chapter_s_first_cells():
    # under pytest a kernel would not show what is written to the file descriptor
    ours = {*SETTINGS, "PYTEST_CURRENT_TEST"}
    bare = {key: value for key, value in os.environ.items() if key not in ours}
    chapter = nbformat.read(ROOT / "notebooks" / "01_the_network.ipynb", as_version=4)
    code = [cell.source for cell in chapter.cells if cell.cell_type == "code"]
    digits = "digits, forward = x_test, ni.tap(ni.pretrained('mlp'), 'logits')"
    said = []

    def listen(message):
        if message["msg_type"] == "error" or message["content"].get("name") == "stderr":
            said.append(message["content"])

    manager, client = start_new_kernel(env=bare, cwd=ROOT / "notebooks")
    try:
        for cell in [*code[:4], digits, SEARCH]:
            client.execute_interactive(cell, timeout=120, output_hook=listen)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert said == []
