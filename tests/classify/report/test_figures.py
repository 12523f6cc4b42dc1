import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from spk.classify.report import figures

SVG = "{http://www.w3.org/2000/svg}"


def texts_of(svg):
    return ["".join(node.itertext()) for node in ET.fromstring(str(svg)).iter(f"{SVG}text")]


@pytest.fixture
def trials():
    rows = [(str(k), name, 0.5 + 0.04 * k, 0.4, 0.9) for k in range(12) for name in ("lda", "x<y")]
    columns = ["layers", "classifier", "valid_accuracy", "valid_low", "valid_high"]
    rows.append(("concat:1+2", "lda", 0.99, 0.9, 1.0))
    return pd.DataFrame(rows, columns=columns).assign(chosen=["yes", *[""] * 24])


def test_layers_stand_in_order_of_number(trials):
    shuffled = trials.sample(frac=1, random_state=3)
    assert list(figures.single_layers(shuffled)["layer"]) == sorted([*range(12)] * 2)


def test_accuracy_by_layer_has_a_line_per_classifier_and_leaves_out_combinations(trials):
    svg = str(figures.by_layer(trials, name="a"))
    assert svg.count("<use") >= 24
    assert "var(--hue-0)" in svg
    assert "var(--hue-1)" in svg
    assert "100%" in texts_of(svg)


def test_a_heat_map_shows_each_layers_accuracy_in_per_cent(trials):
    texts = texts_of(figures.heat_map(trials, name="a"))
    assert {"x<y", "lda", "11", "50", "94"} <= set(texts)
    assert texts.count("54") == 2
    assert "99" not in texts


def test_a_confusion_matrix_shows_counts_and_no_zeros():
    counts = np.array([[3, 0, 1], [0, 7, 0]])
    texts = texts_of(figures.confusion(counts, (["a", "b"], ["a", "b", "c"]), name="m"))
    assert sorted(texts) == sorted(
        ["a", "b", "c", "a", "b", "3", "1", "7", "taken for", "who it was"]
    )


def test_bars_are_as_long_as_their_value():
    bar = figures.Bar(0.5, 0.2, 0.9, 10)
    svg = figures.bars(
        ["one", "$two$"], [{"one": bar}, {"one": bar, "$two$": bar}], name="b", label=""
    )
    assert {"one", "$two$"} <= set(texts_of(svg))
    paths = list(ET.fromstring(str(svg)).iter(f"{SVG}path"))
    drawn = [node for node in paths if "fill: var(--hue-" in node.get("style", "")]
    filled = [node for node in drawn if "opacity: 0.55" in node.get("style", "")]
    assert len(filled) == 3
    numbers = [
        sorted({float(x) for x in node.get("d").replace("M", "").replace("L", "").split()[:-1:2]})
        for node in filled
    ]
    assert len({round(line[-1] - line[0], 2) for line in numbers}) == 1


def test_long_names_make_a_narrow_figure_wider():
    bar = figures.Bar(0.5, 0.2, 0.9, 10)
    widths = []
    for name in ("a", "n" * 40):
        svg = str(figures.bars([name], [{name: bar}], name="b", label="", width=figures.NARROW))
        widths.append(int(re.search(r"--width: (\d+)px", svg)[1]))
    assert widths[0] == round(96 * figures.NARROW)
    assert widths[1] == pytest.approx(96 * (figures.PLAIN + figures.LETTER * 22), abs=1)


def test_a_bin_of_the_reliability_diagram_holds_its_upper_edge():
    confidence = np.array([0.2, 0.2, 0.15, 0.95])
    correct = np.array([True, False, True, True])
    svg = str(figures.reliability(confidence, correct, number=2, name="r"))
    marks = ET.fromstring(svg).iter(f"{SVG}use")
    assert len([m for m in marks if "var(--hue-2)" in m.get("style", "")]) == 2


def test_the_learning_curve_names_its_seconds():
    curve = pd.DataFrame({"seconds": [1, 10.0], "accuracy": [0.2, 0.6], "low": 0.1, "high": 0.9})
    assert {"1", "10"} <= set(texts_of(figures.learning([(0, curve)], name="l")))
