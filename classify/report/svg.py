"""Convert matplotlib figures to inline SVG that takes its colours and font from the page.

Figures are painted in placeholder colours (`INK`, `LINE`, `hue`, `step`, `text_colour`), which
become CSS variables, so that one figure serves light, dark and print. Text remains text. Ids are
made unique by the figure's name, and there is no time stamp: same input, same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes


HUES = 8  # distinguishable also for colour-blind readers; further runs repeat them
STEPS = 9  # of the colour scale in heat maps
INK, LINE = "#000001", "#000002"
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a speaker may be called "$x$"
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "axes.edgecolor": LINE,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
PIXELS = 4 / 3  # of CSS in a point
COLOUR = re.compile(r"#0[0-9a-f]{5}\b")
FONT = re.compile(r"font: (?:[a-z]+ )*([\d.]+)px [^;]*")


def hue(number: int) -> str:
    """Return the placeholder colour of run or classifier `number` (from 0)."""
    return f"#0001{number % HUES:02x}"


def step(share: float) -> str:
    """Return the placeholder for a heat map's colour at `share` 0..1 of its scale."""
    return f"#0002{_step(share):02x}"


def text_colour(share: float) -> str:
    """Return the placeholder for the colour of text on `step(share)`."""
    return f"#0003{_step(share):02x}"


def _step(share: float) -> int:
    return min(max(int(share * STEPS), 0), STEPS - 1)


def figure_to_svg(
    paint: Callable[[Axes], None], *, name: str, size: tuple[float, float], label: str
) -> Markup:
    """Render what `paint` draws on its axes as one SVG element.

    Parameters
    ----------
    name : str
        Letters, digits and hyphens; unique in the page.
    size : (width, height) in inches
    label : str
        Description of the figure for screen readers.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    text = io.StringIO()
    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": name}
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # measured, but drawn by the browser
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        ConstrainedLayoutEngine().execute(figure)  # once; savefig would draw everything twice
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
    return _inline(text.getvalue(), name, label)


def _inline(text: str, name: str, label: str) -> Markup:
    from markupsafe import Markup

    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    root = ET.fromstring(text)  # noqa: S314  matplotlib's own, of a moment ago
    for node in root.iter():
        for key, value in list(node.attrib.items()):
            node.set(key, _attribute(key, value, name))
    for definitions in root.findall(f"{{{SVG}}}defs"):
        for style in definitions.findall(f"{{{SVG}}}style"):
            definitions.remove(style)  # it would apply to the whole page, which has its own
    width = float(root.attrib.pop("width").removesuffix("pt")) * PIXELS
    del root.attrib["height"]
    root.set("style", f"--width: {width:.0f}px")
    root.set("role", "img")
    root.set("aria-label", label)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704  ElementTree escapes


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == f"{{{XLINK}}}href":
        return value.replace("#", f"#{name}-", 1)
    value = value.replace("url(#", f"url(#{name}-")
    return FONT.sub(r"font-size: \1px", COLOUR.sub(_variable, value)) if key == "style" else value


def _variable(match: re.Match[str]) -> str:
    code = match[0]
    if code in (INK, LINE):
        return "currentColor" if code == INK else "var(--line)"
    kind = {"1": "hue", "2": "step", "3": "on-step"}.get(code[4])
    return f"var(--{kind}-{int(code[5:], 16)})" if kind and code[1:4] == "000" else code
