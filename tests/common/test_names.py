"""When names are the same, what is no name, and names that a disk takes."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spk.common.names import changed_names, is_placeholder, normal_name, shortened


@pytest.mark.parametrize("name", ["Jörg", "회의", "Zoë", "王", "A_1"])
def test_decomposed_letters_and_blanks_at_the_ends_make_no_other_name(name):
    assert normal_name(f"\t{unicodedata.normalize('NFD', name)} ") == name


@given(st.text())
def test_a_normal_name_is_its_own_normal_form(text):
    assert normal_name(normal_name(text)) == normal_name(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("<NA>", True), ("<unk>", True), ("< n/a >", True), ("NA", False), ("<script>", False)],
)
def test_a_placeholder_is_refused_but_na_may_be_a_name(name, expected):
    assert is_placeholder(name) is expected


def test_names_that_were_changed_are_counted_with_those_that_became_one():
    assert changed_names(["a", "b"]) == ""
    told = changed_names(["Jo\u0308rg", "Jörg", "b "])
    assert told.startswith("2 names are read in NFC without blanks at their ends, first 'Jo")
    assert told.endswith("which makes 1 of 3 equal")


@given(st.text(min_size=1, max_size=200), st.integers(40, 230))
def test_a_shortened_name_fits_and_a_short_one_is_itself(name, longest):
    name = name.encode(errors="ignore").decode()
    short = shortened(name, longest)
    assert len(short.encode()) <= longest
    assert short == name or len(name.encode()) > longest


def test_long_names_that_differ_in_their_middle_stay_apart():
    names = [f"{'会' * 60}{middle}{'议' * 60}" for middle in "甲乙"]
    assert len({shortened(name, 215) for name in names}) == 2
    assert shortened(names[0], 215).startswith("会" * 30)
