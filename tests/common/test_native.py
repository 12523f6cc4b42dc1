from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from spk.common.native import as_text, take_native


@dataclass(frozen=True)
class Toy:
    layers: str = "all"
    root: str | None = None
    names: tuple[str, ...] = ()
    count: int | str = 0
    exact: bool = False

    def __post_init__(self):
        take_native(self)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("4,8", "4,8"),
        ([4, 8], "4,8"),
        ((4,), "4"),
        (range(3), "0,1,2"),
        (np.array([4, 8]), "4,8"),
        (np.int64(7), "7"),
        (0.5, "0.5"),
        ([1, 2.5], "1,2.5"),
        (True, "yes"),
        (False, "no"),
        (Path("wav"), "wav"),
    ],
)
def test_a_text_setting_takes_pythons_own_types(value, text):
    assert Toy(layers=value).layers == text
    assert as_text(value) == text


def test_other_settings_keep_what_they_were_given():
    toy = Toy(names=("a",), count=3, exact=True)
    assert (toy.root, toy.names, toy.count, toy.exact) == (None, ("a",), 3, True)
    assert Toy(root=Path("a") / "b").root == str(Path("a") / "b")
