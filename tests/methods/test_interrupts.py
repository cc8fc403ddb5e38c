"""Ctrl-C ends a search within seconds, and the next one is as good as ever."""

import os
import queue
import signal
import subprocess
import sys
import time

import pytest
from jupyter_client.manager import start_new_kernel

from tools.environment import ROOT

SLACK = 5.0  # seconds; each of these searches takes minutes
SEARCHES = {
    "Adam": "ni.GradientInversion(steps=200_000)",
    "second order": "ni.LevenbergMarquardt(start='noise', restarts=1000)",
}
# Tests that run in the background are deaf to Ctrl-C, and so would be what they start.
PREPARE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
import netinvert as ni

_, (x_test, _) = ni.load_mnist()
forward = ni.tap(ni.pretrained("mlp"), "hidden_1")
targets = forward(x_test[:600]).numpy()
long = {search}
short = type(long)(start="noise", steps=5)
before = ni.invert(forward, targets[:200], short).inputs
"""
COMPARE = (
    "print(np.abs(ni.invert(forward, targets[:200], short).inputs - before).max())"
)
IN_A_TERMINAL = """
print("searching", flush=True)
try:
    ni.invert(forward, targets, long, progress=False)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
@pytest.mark.parametrize("name", SEARCHES)
def test_in_a_terminal_ctrl_c_ends_a_search_and_breaks_nothing(name):
    code = PREPARE.format(search=SEARCHES[name]) + IN_A_TERMINAL + COMPARE
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "searching\n"
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        assert process.stdout.readline() == "stopped\n"
        assert time.monotonic() - sent < SLACK
        assert float(process.stdout.readline()) < 1e-5


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_in_a_notebook_the_kernel_stops_and_goes_on():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    manager, client = start_new_kernel(cwd=str(ROOT), env=environment)

    def printed(code: str) -> str:
        """Run a cell, and return what it wrote."""
        text = []

        def keep(message):
            text.append(message["content"].get("text", ""))

        reply = client.execute_interactive(code, output_hook=keep, timeout=300)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(text)

    try:
        printed(PREPARE.format(search=SEARCHES["Adam"]))
        search = "ni.invert(forward, targets, long, progress=False)"
        cell = client.execute(search, stop_on_error=False)
        time.sleep(3)
        with pytest.raises(queue.Empty):  # it is still at it
            client.get_shell_msg(timeout=0.1)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=SLACK)
        assert reply["parent_header"]["msg_id"] == cell
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert float(printed(COMPARE)) < 1e-5
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
