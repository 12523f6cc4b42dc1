"""A hook of mkdocs: notebooks become pages, their cells and the outputs that they hold.

Nothing is run here: `tests/test_notebooks.py` runs each and compares what it prints.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


class NotebookPage(File):
    """A page made of a notebook; links name the notebook, as they do in the repository."""

    def is_documentation_page(self) -> bool:
        """Say that it is a page, whatever its suffix."""
        return True


IMAGES = {"image/svg+xml": ".svg", "image/png": ".png"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put a page of Markdown, and its pictures, in the place of each notebook."""
    for source in [file for file in files if file.src_uri.endswith(".ipynb")]:
        notebook = nbformat.reads(source.content_string, as_version=4)
        place = PurePosixPath(source.src_uri)
        parts = [*_markdown(notebook, place.stem)]
        images = {name: content for _, images in parts for name, content in images.items()}
        files.remove(source)
        page = NotebookPage(source.src_uri, None, config.site_dir, config.use_directory_urls)
        page.content_string = "\n\n".join(text for text, _ in parts) + "\n"
        files.append(page)
        for name, content in images.items():
            files.append(File.generated(config, str(place.with_name(name)), content=content))
    return files


def _markdown(notebook: Any, stem: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the text of each cell and output, and its pictures by name."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            yield cell.source, {}
            continue
        yield _fence(cell.source, "python"), {}
        for place, output in enumerate(cell.outputs):
            yield _output(output, f"{stem}-{number}-{place}")


def _output(output: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """Return an output as Markdown: a picture or table where it has one, else its text."""
    if output.output_type == "stream":
        return _fence(output.text, "text"), {}
    for kind, suffix in IMAGES.items():
        if kind in output.data:
            content = output.data[kind]
            picture = content.encode() if suffix == ".svg" else base64.b64decode(content)
            return f"![{output.data['text/plain']}]({name}{suffix})", {f"{name}{suffix}": picture}
    if "text/html" in output.data:
        return _table(output.data["text/html"]), {}
    return _fence(output.data["text/plain"], "text"), {}


def _table(html: str) -> str:
    """Return the table of a data frame without pandas' own style, so that it has the site's."""
    bare = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    return re.sub(r"\n\s*\n", "\n", bare.replace(' border="1" class="dataframe"', ""))


def _fence(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"
