"""A headless Chromium, driven over its DevTools protocol with one websocket.

Small on purpose: the page checks need to open a page, resize it, press a key, ask
a question in JavaScript and take a picture. websocket-client, which Jupyter needs
anyway, is enough for that.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --hide-scrollbars --remote-debugging-port=0"
).split()
PATIENCE = 60  # seconds until a page or an answer counts as lost


def find_chromium() -> str | None:
    """Path of a Chromium, from $CHROMIUM or the search path."""
    candidates = [os.environ.get("CHROMIUM", ""), *NAMES]
    return next(filter(None, map(shutil.which, filter(None, candidates))), None)


class Page:
    """One tab. ``events`` holds what the browser reported since the last visit."""

    def __init__(self, address: str):
        self.socket = websocket.create_connection(
            address, timeout=PATIENCE, suppress_origin=True
        )
        self.events: list[dict] = []
        self.number = 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters) -> dict:
        """Give one command and wait for its answer."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        self.socket.send(json.dumps(command))
        while (message := json.loads(self.socket.recv())).get("id") != self.number:
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def wait_for(self, event: str) -> None:
        while not any(message.get("method") == event for message in self.events):
            self.events.append(json.loads(self.socket.recv()))

    def evaluate(self, expression: str):
        """Value of a JavaScript expression; a promise is awaited."""
        answer = self.send(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def visit(self, address: str) -> None:
        """Open a page and wait until its pictures and formulas are there."""
        self.events.clear()
        self.send("Page.navigate", url=address)
        self.wait_for("Page.loadEventFired")
        self.evaluate("window.MathJax?.startup?.promise.then(() => null)")

    def look(self, width: int, height: int, scheme: str) -> None:
        """Choose the window's size and "light" or "dark", as a reader's system does."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            screenWidth=width,
            screenHeight=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        features += [{"name": "prefers-reduced-motion", "value": "reduce"}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def press(self, key: str) -> None:
        code = {"ArrowRight": 39, "ArrowLeft": 37, "End": 35, "Home": 36}
        code |= {"Tab": 9, "Enter": 13}
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code[key],
                **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}),
            )

    def screenshot(self, path: Path) -> None:
        """Save the whole page, down to 12,000 pixels."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "scale": 1}
        picture = self.send(
            "Page.captureScreenshot",
            captureBeyondViewport=True,
            format=path.suffix[1:],
            clip={**clip, "height": min(size["height"], 12_000)},
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture["data"]))


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes nothing to the terminal."""

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder: Path, handler=Silent):
    """Serve a folder, and yield its address."""
    handler = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def open_page(chromium: str):
    """Start a browser with an empty profile and yield its one tab."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Page(_address_of_tab(Path(profile), process))
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)


def _address_of_tab(profile: Path, process: subprocess.Popen) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            port = (profile / "DevToolsActivePort").read_text().splitlines()[0]
            return _first_tab(int(port))
        time.sleep(0.1)
    raise RuntimeError(f"Chromium did not start within {PATIENCE} s")


def _first_tab(port: int) -> str:
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
        tabs = json.load(answer)
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
