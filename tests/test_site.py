"""The site: built strictly, it holds every command and public name, and asks no other host."""

import importlib
import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
from browser import open_browser

from spk.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("manifests", "extract", "classify", "classify.naming", "finetune")
WIDTHS = {"phone": 390, "laptop": 1440}  # pixels
BUILD = ("build", "--strict")  # with --quiet mkdocs counts no warning, and every page passes
WIDTH = "(({scrollWidth, clientWidth}) => [scrollWidth, clientWidth])(document.documentElement)"
# Formats with a number on the page of versions: the row's start, and where the number stands.
SCHEMAS = {
    "store": "extract.store.shard",
    "model folder": "classify.speaker_model_files",
    "voices": "classify.naming.voices_file",
    "inputs of a sweep": "classify.selection.run_inputs",
    "combinations of a sweep": "classify.selection.sweep_cache",
}


READABLE = 4.5  # the least contrast of text with what it stands on, WCAG 2.2, 1.4.3
# Of the words in code: their class, colour and the colour below, once painted, as [r, g, b].
CODE_COLOURS = """(() => {
    const brush = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const painted = (...colours) => {
        for (const colour of ["white", ...colours]) {
            brush.fillStyle = colour;
            brush.fillRect(0, 0, 1, 1);
        }
        return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    return [...document.querySelectorAll(".highlight code span[class]")].map((word) => {
        const below = getComputedStyle(word.closest("code")).backgroundColor;
        return [word.className, painted(below, getComputedStyle(word).color), painted(below)];
    });
})()"""


def contrast(colour, other):
    """Return the contrast of two colours, [r, g, b] from 0 to 255, as WCAG 2.2 defines it."""
    lights = []
    for channels in (colour, other):
        parts = [part / 255 for part in channels]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


class Loaded(HTMLParser):
    """What a browser loads with a page by itself, and the ids that links may lead to."""

    def __init__(self, page):
        super().__init__()
        self.addresses, self.ids = [], set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.add(values.get("id"))
        if tag in ("script", "img", "iframe", "source", "audio", "video") and values.get("src"):
            self.addresses.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "preconnect", "icon", "preload"):
            self.addresses.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", *BUILD]
    done = subprocess.run(
        [*command, "--site-dir", str(folder / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_make_docs_builds_as_this_test_does():
    assert re.findall(r"/mkdocs (.*)", (ROOT / "Makefile").read_text()) == [" ".join(BUILD)]


def commands(command, name, context=None):
    """Yield what is typed for each command and group below a command."""
    yield name
    if isinstance(command, click.Group):
        below = click.Context(command, context, name)
        for word in command.list_commands(below):
            dash = "-" if context is None else " "
            yield from commands(command.get_command(below, word), f"{name}{dash}{word}", below)


@pytest.mark.slow
def test_every_command_stands_in_the_reference(site):
    for name in [*commands(main, "spk")][1:]:
        page = Loaded(site / "reference" / f"{name.partition(' ')[0]}.html")
        assert name.replace(" ", "-") in page.ids


HELP = """  --same-name [auto|never]
                     Whether clusters may share a name.  [by --false-
                     accepts]
  -h, --help         Show this message &amp; exit."""


def shown_by_blocks(page):
    return runpy.run_path(str(ROOT / ".ci/site/blocks.py"))["on_page_content"](page)


def test_options_become_a_list():
    code = f"<pre><span></span><code>{HELP}</code></pre>"
    title = "<p><strong>Options:</strong></p>"
    page = f'{title}\n<div class="language-text highlight">{code}</div>'
    shown = shown_by_blocks(page)
    shown = re.sub("</?(?:span|code).*?>", "", shown)
    assert re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", shown) == [
        ("--same-name [auto|never]", "Whether clusters may share a name.  [by --false-accepts]"),
        ("-h, --help", "Show this message &amp; exit."),
    ]


def test_options_and_commands_are_not_broken_at_their_hyphens():
    shown = shown_by_blocks("<p>or --audio-root; spk-store (test-spk-store, a/--b)</p>")
    assert re.findall('<span class="short">(.*?)</span>', shown) == ["--audio-root", "spk-store"]


def test_cells_of_figures_stay_one_line_and_those_of_sentences_get_room():
    cells = ["97.6 (92-100)", "yes", "a sentence that would be squeezed to a word a line"]
    shown = shown_by_blocks("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    assert re.findall('<td(?: class="(.*?)")?>', shown) == ["short", "", "long"]


def test_what_help_and_tables_quote_is_shown_as_typed():
    shown = shown_by_blocks(r"<td><code>a \| b</code></td>")
    assert '<code class="short">a | b</code>' in shown
    help_text = "  --gain FLOAT  As of `channel`."
    block = f'<div class="highlight"><pre><span></span><code>{help_text}</code></pre></div>'
    shown = shown_by_blocks(f"<p><strong>Options:</strong></p>\n{block}")
    assert re.search('As of <code class="short">channel</code>', shown)


def test_sentences_can_be_broken_and_rows_of_tables_cannot():
    lines = ["layers  accuracy\n", "4 of 7 clusters have a name\n"]
    spans = "".join(f'<span id="__span-0-{n}">{line}</span>' for n, line in enumerate(lines))
    page = f'<div class="language-text highlight"><pre><code>{spans}</code></pre></div>'
    shown = shown_by_blocks(page)
    assert re.findall(r'class="prose">(.*)', shown) == ["4 of 7 clusters have a name"]


@pytest.mark.slow
def test_every_public_name_stands_in_the_reference(site):
    ids = Loaded(site / "reference" / "python.html").ids
    names = {
        f"spk.{package}.{name}"
        for package in PACKAGES
        for name in importlib.import_module(f"spk.{package}").__all__
    }
    assert names - ids == set()


@pytest.mark.slow
def test_the_site_loads_nothing_from_another_host(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > 30
    away = {
        (page.name, address)
        for page in pages
        for address in Loaded(page).addresses
        if re.match(r"(\w+:)?//", address)
    }
    assert away == set()
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"url\(\s*['\"]?(?:https?:)?//[^)]*", styles)


@pytest.mark.slow
def test_no_page_is_wider_than_its_window(site, tmp_path_factory):
    browser = open_browser(tmp_path_factory.mktemp("profile"))
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]  # the host's paths
    wider = []
    try:
        for page in sorted(pages):
            browser.open(page)
            asked = [address for address in browser.requests() if address.startswith("http")]
            assert asked == []
            for device, width in WIDTHS.items():
                phone = device == "phone"
                browser.look(width=width, height=800, mobile=phone, whole=False)
                shown, window = browser.run(WIDTH)
                if shown > min(window, width):
                    wider.append((page.name, device, shown, window))
    finally:
        browser.close()
    assert wider == []


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_code_can_be_read_in_the_light_and_in_the_dark(site, tmp_path, dark):
    browser = open_browser(tmp_path)
    shown = []
    try:
        browser.look(dark=dark)
        for page in ("how-to/names.html", "reference/python.html", "tutorial/index.html"):
            browser.open(site / page)
            shown += browser.run(CODE_COLOURS)
    finally:
        browser.close()
    assert len({kind for kind, *_ in shown}) > 5
    ratios = {(kind, *text): contrast(text, ground) for kind, text, ground in shown}
    assert {kind: ratio for kind, ratio in ratios.items() if ratio < READABLE} == {}


def test_the_page_of_versions_has_the_numbers_of_the_code():
    text = (ROOT / "docs" / "reference" / "versions.md").read_text()
    for row, module in SCHEMAS.items():
        number = importlib.import_module(f"spk.{module}").SCHEMA
        assert re.search(rf"^\| {row} \|[^|]+\| {number} \|", text, re.MULTILINE), row
