import re
import xml.etree.ElementTree as ET

from spk.classify.report.svg import INK, LINE, figure_to_svg, hue, step, text_colour

SIZE = (3, 2)


def painted(name="a", text="words", color=INK):
    def paint(axes):
        axes.plot([0, 1], [0, 1], "o-", color=color)
        axes.set_title(text)

    return str(figure_to_svg(paint, name=name, size=SIZE, label="What & why"))


def test_text_stays_text_and_is_escaped():
    root = ET.fromstring(painted(text="<script>x</script> & $y$ 张"))
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<script>x</script> & $y$ 张" in texts
    assert "<script" not in painted(text="<script>x</script>")
    assert root.get("aria-label") == "What & why"


def test_what_a_text_says_is_not_taken_for_an_id_or_a_colour():
    assert ' id="x" url(#y) #000001' in painted(text=' id="x" url(#y) #000001').replace(
        "&quot;", '"'
    )


def test_ids_are_of_the_figure_and_every_reference_is_met():
    text = painted(name="first")
    ids = re.findall(r' id="([^"]*)"', text)
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(name.startswith("first-") for name in ids)
    assert not set(ids) & set(re.findall(r' id="([^"]*)"', painted(name="second")))
    wanted = re.findall(r'(?:href="#|url\(#)([^")]*)', text)
    assert wanted
    assert set(wanted) <= set(ids)


def test_colours_are_the_pages():
    assert "stroke: var(--hue-1)" in painted(color=hue(9))
    assert "var(--step-8)" in painted(color=step(1.0))
    assert "var(--on-step-0)" in painted(color=text_colour(0.0))
    assert "var(--line)" in painted(color=LINE)
    assert "currentColor" in painted()
    assert not re.search(r"#000[0-3]\d\d", painted().replace("#000000", ""))


def test_the_same_figure_has_the_same_bytes_and_no_style_for_the_whole_page():
    assert painted() == painted()
    assert "<style" not in painted()
    assert "<metadata" not in painted()
