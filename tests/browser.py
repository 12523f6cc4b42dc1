"""A page in a real browser: a headless Chromium, driven over its debugging pipe.

Chrome DevTools protocol: JSON messages, each ended by a NUL.
"""

import base64
import json
import os
import select
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 120  # s, for a sign of life from the browser

# What every player's clip lasts, in s; -1 where it cannot be played, -2 where it has no sound.
CLIP_SECONDS = """Promise.all([...document.querySelectorAll("audio")].map((player) =>
    new Promise((done) => {
        if (player.readyState > 0) return done(player.duration);
        if (!player.src) return done(-2);
        player.addEventListener("loadedmetadata", () => done(player.duration));
        player.addEventListener("error", () => done(-1));
        player.load();
    })))"""


def find_browser():
    """Return the path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page in a browser of its own; `troubles` gathers what the console complains."""

    def __init__(self, program, folder):
        ours, theirs = os.pipe(), os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        options += ["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"]
        command = [program, *options, f"--user-data-dir={folder}", "about:blank"]
        pipes = f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}'  # the browser talks on 3 and 4
        self.process = subprocess.Popen(
            ["bash", "-c", pipes, "bash", *command],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from = os.fdopen(ours[1], "wb", 0), os.fdopen(theirs[0], "rb", 0)
        self._rest, self._number, self._session = b"", 0, None
        self.events, self.troubles = [], []
        page = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def close(self):
        self._to.close()
        self._from.close()
        self.process.terminate()
        self.process.wait()

    def ask(self, method, **parameters):
        """Return the answer to one command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        return self._until(lambda found: found.get("id") == message["id"])["result"]

    def open(self, path):
        """Load a file and wait until it is there."""
        self.events.clear()
        self.troubles.clear()
        self.ask("Page.navigate", url=path.as_uri())
        if not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._until(lambda found: found.get("method") == "Page.loadEventFired")

    def run(self, code):
        """Return what JavaScript `code` (an expression, or a promise of one) comes to."""
        answer = self.ask(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def look(self, *, width=1280, height=900, dark=False, mobile=False, whole=True):
        """Return a PNG of the page."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def print(self):
        """Return the page on A4 as PDF."""
        found = self.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(found["data"])

    def requests(self):
        """Return the addresses that the page asked for, but for itself and what it holds."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [e["params"]["request"]["url"] for e in sent if e["params"]["type"] != "Document"]

    def _until(self, wanted):
        while True:
            while b"\0" not in self._rest:
                ready, _, _ = select.select([self._from], [], [], PATIENCE)
                block = os.read(self._from.fileno(), 1 << 20) if ready else b""
                if not block:
                    raise RuntimeError("the browser has ended, or does not answer")
                self._rest += block
            line, _, self._rest = self._rest.partition(b"\0")
            found = json.loads(line)
            if "method" in found:
                self._note(found)
            if wanted(found):
                if "error" in found:
                    raise RuntimeError(found["error"])
                return found

    def _note(self, event):
        self.events.append(event)
        parameters = event["params"]
        if event["method"] == "Runtime.exceptionThrown":
            self.troubles.append(parameters["exceptionDetails"])
        elif event["method"] == "Log.entryAdded":
            self.troubles.append(parameters["entry"])
        elif event["method"] == "Runtime.consoleAPICalled" and parameters["type"] != "log":
            self.troubles.append(parameters)


def open_browser(folder: Path) -> Browser:
    """Return a browser with its profile in `folder`; skip the test where none is installed."""
    program = find_browser()
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed (apt-get install chromium)")
    return Browser(program, folder)
