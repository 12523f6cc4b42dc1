"""The report in a real browser: it runs, sorts, filters and plays; without one, these skip.

A headless Chromium is driven over its debugging pipe (Chrome DevTools protocol, JSON and NUL).
"""

import base64
import json
import os
import select
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 120  # s, for a sign of life from the browser
EVIL = "<script>document.title='taken'</script>"  # a speaker of the toy meetings


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


@pytest.fixture(scope="module")
def browser(tmp_path_factory, heard_page):
    """Return a browser that shows the report over the toy meetings."""
    program = find_browser()
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed (apt-get install chromium)")
    page = tmp_path_factory.mktemp("page") / "report.html"
    page.write_text(heard_page)
    shown = Browser(program, tmp_path_factory.mktemp("profile"))
    yield shown, page
    shown.close()


@pytest.fixture
def page(browser):
    shown, path = browser
    shown.open(path)
    return shown


COLUMN = """[...document.querySelectorAll("#meetings .grid tbody tr")]
    .map((row) => row.cells[COLUMN].firstChild.textContent.trim())"""
CLICK = """document.querySelectorAll("#meetings .grid th button")[COLUMN].click()"""
STATE = """document.querySelectorAll("#meetings .grid th")[COLUMN].ariaSort"""
CHOOSE = """(() => { const one = document.querySelector("select[name=NAME]");
    one.value = VALUE; one.dispatchEvent(new Event("change", { bubbles: true })); })()"""
SHOWN = """[...document.querySelectorAll(".errors > li")].filter((item) => item.offsetParent)
    .map((item) => [item.dataset.run, item.dataset.session, item.dataset.speaker,
        item.dataset.predicted])"""


def choose(page, name, value):
    page.run(CHOOSE.replace("NAME", name).replace("VALUE", json.dumps(value)))


def test_the_console_is_silent_and_nothing_is_fetched(page):
    assert page.run("document.title") == "Who speaks in the meeting"
    assert page.troubles == []
    assert [url for url in page.requests() if not url.startswith("data:")] == []


def test_the_console_is_not_silent_about_a_script_that_is_not_ours(page, tmp_path):
    harmed = tmp_path / "harmed.html"
    path = page.run("location.pathname")
    with open(path) as file:
        harmed.write_text(file.read().replace("</main>", "</main><script>1</script>"))
    page.open(harmed)
    assert any("Content Security Policy" in json.dumps(trouble) for trouble in page.troubles)


def test_a_name_that_is_a_script_is_shown_and_does_nothing(page):
    assert page.run(f"document.body.innerText.includes({json.dumps(EVIL)})")
    assert page.run("document.title") == "Who speaks in the meeting"


def test_a_click_sorts_up_and_the_next_one_down(page):
    click, values, state = (text.replace("COLUMN", "2") for text in (CLICK, COLUMN, STATE))
    assert page.run(values) == ["80.0 %", "90.0 %"]
    page.run(click)
    assert (page.run(values), page.run(state)) == (["80.0 %", "90.0 %"], "ascending")
    page.run(click)
    assert (page.run(values), page.run(state)) == (["90.0 %", "80.0 %"], "descending")
    page.run(CLICK.replace("COLUMN", "0"))
    assert page.run(COLUMN.replace("COLUMN", "0")) == ["A&<b>", "B"]
    assert page.run(state) == "none"


def test_enter_on_a_heading_sorts(page):
    page.run("""document.querySelectorAll("#meetings .grid th button")[2].focus()""")
    for kind in ("keyDown", "char", "keyUp", "keyDown", "char", "keyUp"):
        page.ask(
            "Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r"
        )
    assert page.run(STATE.replace("COLUMN", "2")) == "descending"


def test_numbers_sort_as_numbers_and_empty_cells_stay_last(page):
    page.run("""(() => { const body = document.querySelector("#meetings .grid tbody");
        for (const number of ["9", "100", "NaN"]) {
            const row = body.rows[0].cloneNode(true);
            row.cells[1].dataset.sort = number; row.cells[1].textContent = number; body.append(row);
        } })()""")
    page.run(CLICK.replace("COLUMN", "1"))
    values = COLUMN.replace("COLUMN", "1")
    assert page.run(values) == ["9", "10", "10", "100", "NaN"]
    page.run(CLICK.replace("COLUMN", "1"))
    assert page.run(values) == ["100", "10", "10", "9", "NaN"]


def test_errors_are_filtered_by_run_meeting_and_speaker(page):
    assert len(page.run(SHOWN)) == 4
    choose(page, "session", "B")
    assert [row[1] for row in page.run(SHOWN)] == ["B"]
    assert page.run("document.getElementById('shown').textContent") == "1 of 4 shown"
    choose(page, "session", "")
    choose(page, "run", "1")
    assert [row[0] for row in page.run(SHOWN)] == ["1"]
    choose(page, "run", "")
    choose(page, "speaker", "B_002-F")
    assert [row[2] for row in page.run(SHOWN)] == ["B_002-F"]
    choose(page, "speaker", EVIL)  # twice the true one, twice whom it was taken for
    assert sorted(row.index(EVIL) for row in page.run(SHOWN)) == [2, 2, 3, 3]
    choose(page, "speaker", "B_002-F")
    choose(page, "run", "1")
    assert page.run(SHOWN) == []


def test_every_player_loads_its_clip(page):
    lengths = page.run("""Promise.all([...document.querySelectorAll("audio")].map((player) =>
        new Promise((done) => {
            if (player.readyState > 0) return done(player.duration);
            if (!player.src) return done(-2);
            player.addEventListener("loadedmetadata", () => done(player.duration));
            player.addEventListener("error", () => done(-1));
            player.load();
        })))""")
    assert len(lengths) == 12  # four errors: itself, taken for, true
    assert min(lengths) >= 0.5
    assert max(lengths) <= 6.0
    assert page.troubles == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window_and_takes_its_colours(page, width, dark):
    picture = page.look(width=width, dark=dark, mobile=width < 400, whole=False)
    assert picture.startswith(b"\x89PNG")
    assert page.run("document.documentElement.scrollWidth") <= width
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    ink = page.run("getComputedStyle(document.querySelector('.plot svg text')).fill")
    assert (paper == "rgb(15, 20, 25)") == dark
    assert (ink == "rgb(228, 233, 238)") == dark


def test_the_page_prints_on_a4_with_every_meeting_open(page):
    import re

    page.run("document.querySelectorAll('details.card').forEach((one) => { one.open = false; })")
    pdf = page.print()
    assert pdf.startswith(b"%PDF")
    box = re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert [round(float(side)) for side in box.groups()] == [595, 842]  # points: 210 x 297 mm
    assert page.run("document.querySelectorAll('details.card[open]').length") == 0
