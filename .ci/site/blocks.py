"""A hook of mkdocs: blocks of plain text that a phone can show.

The options of a command, which `mkdocs-click` prints as its ``--help`` aligns them, become a list.
A line of output that is a sentence, not the row of a table, is marked (class ``prose``), so that
the style can break it. What is typed in a cell may be broken after a comma or slash; what is short,
an option, a command and a figure with its interval are marked, so that they are broken nowhere. A
cell that holds a sentence is marked, so that a phone does not squeeze it to a word a line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

OPTIONS = re.compile(
    r"<p><strong>Options:</strong></p>\n"
    r'<div class="(?:language-text )?highlight"><pre><span></span><code>(.*?)</code></pre></div>',
    re.DOTALL,
)
OUTPUT = re.compile(r'<div class="language-text highlight">.*?</div>', re.DOTALL)
LINE = re.compile(r'<span id="(__span[^"]*)">(.*?\n)</span>', re.DOTALL)
CELL = re.compile(r"<td[ >].*?</td>", re.DOTALL)
CODE = re.compile(r"<code>([^<]*)</code>")
SHORT = re.compile(r"<code>([^<\n]{1,24})</code>")
JOINT = re.compile(r"(?<=[,/])(?=\w)")
TYPED = re.compile(r"`([^`]+)`")
BETWEEN_TAGS = re.compile(r">[^<]+<")
HYPHENATED = re.compile(
    r"(?<![\w/.-])(?:--|spk-)\w[\w-]{0,28}(?![\w/-])"
)  # --audio-root, spk-store
FIGURES = re.compile(r"[\d.,()% -]+")
OPENED_CELL = re.compile(r"<(t[dh])((?: [^>]*)?)>(.*?)(?=</\1>)", re.DOTALL)
LONG = {"td": 40, "th": 20}  # characters that make a cell long
TAGS = re.compile(r"<[^>]+>")
COLUMNS = re.compile(r"\S {2,}\S")  # what a row of a table has, and a sentence has not


def on_page_content(content: str, **_: object) -> str:
    """Return a page's HTML with its options as lists and its sentences marked."""
    content = OPTIONS.sub(lambda block: _list(_text(block[1])), content)
    content = OUTPUT.sub(lambda block: LINE.sub(_marked, block[0]), content)
    content = CELL.sub(lambda cell: CODE.sub(_jointed, cell[0]), content)
    content = SHORT.sub(r'<code class="short">\1</code>', content)
    content = OPENED_CELL.sub(_sized, content)
    return BETWEEN_TAGS.sub(_unbroken, content)


def _text(code: str) -> str:
    return html.unescape(TAGS.sub("", code))


def _marked(line: re.Match[str]) -> str:
    if COLUMNS.search(_text(line[2])):
        return line[0]
    return f'<span id="{line[1]}" class="prose">{line[2]}</span>'


def _jointed(code: re.Match[str]) -> str:
    typed = code[1].replace(r"\|", "|")  # a bar is typed so in a table, for GitHub
    return f"<code>{JOINT.sub('<wbr>', typed)}</code>"


def _sized(cell: re.Match[str]) -> str:
    tag, attributes, inside = cell.groups()
    text = _text(inside).strip()
    size = "short" if FIGURES.fullmatch(text) else "long" if len(text) > LONG[tag] else None
    if size is None or "class=" in attributes:
        return cell[0]
    return f'<{tag} class="{size}"{attributes}>{inside}'


def _unbroken(text: re.Match[str]) -> str:
    return HYPHENATED.sub(r'<span class="short">\g<0></span>', text[0])


def _list(text: str) -> str:
    """Return options as a definition list."""
    items = [
        f"<dt><code>{html.escape(option)}</code></dt>"
        + TYPED.sub(r"<code>\1</code>", f"<dd>{html.escape(meaning)}</dd>")
        for option, meaning in options_of(text)
    ]
    return "\n".join(["<p><strong>Options:</strong></p>", '<dl class="options">', *items, "</dl>"])


def options_of(text: str) -> Iterator[tuple[str, str]]:
    r"""Yield each option as it is typed, and what its help says in one line.

    >>> [*options_of("  -o, --output PATH  Where the false-\n                     accepts are.")]
    [('-o, --output PATH', 'Where the false-accepts are.')]
    """
    for part in re.split(r"^  (?=-)", text, flags=re.MULTILINE)[1:]:
        option, meaning = [*re.split(r"\s*\n\s*| {2,}", part.strip(), maxsplit=1), ""][:2]
        lines = re.sub(r"\s*\n\s*", "\n", meaning)
        yield option, re.sub(r"(?<=\w-)\n(?=\w)", "", lines).replace("\n", " ")
