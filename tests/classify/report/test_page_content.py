"""The report in a real browser: it runs, sorts, filters and plays; without one, these skip."""

import json

import pytest
from browser import CLIP_SECONDS, open_browser

EVIL = "<script>document.title='taken'</script>"  # a speaker of the toy meetings


@pytest.fixture(scope="module")
def browser(tmp_path_factory, heard_page):
    """Return a browser that shows the report over the toy meetings."""
    page = tmp_path_factory.mktemp("page") / "report.html"
    page.write_text(heard_page)
    shown = open_browser(tmp_path_factory.mktemp("profile"))
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
    choose(page, "run", "two")
    assert [row[0] for row in page.run(SHOWN)] == ["two"]
    choose(page, "run", "")
    choose(page, "speaker", "B_002-F")
    assert [row[2] for row in page.run(SHOWN)] == ["B_002-F"]
    choose(page, "speaker", EVIL)  # twice the true one, twice whom it was taken for
    assert sorted(row.index(EVIL) for row in page.run(SHOWN)) == [2, 2, 3, 3]
    choose(page, "speaker", "B_002-F")
    choose(page, "run", "two")
    assert page.run(SHOWN) == []


def test_every_player_loads_its_clip(page):
    lengths = page.run(CLIP_SECONDS)
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
