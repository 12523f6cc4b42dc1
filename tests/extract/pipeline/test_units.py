"""Units of an extraction: their size, their order, their keys; no Ray is needed."""

import sys
from itertools import pairwise

import pytest
from helpers import noise_meeting

from spk.common.errors import InputError
from spk.extract.audio import Segment
from spk.extract.options import ExtractOptions
from spk.extract.pipeline.units import cut_units, extraction_unit
from spk.extract.run import run_extraction
from spk.extract.store.reader import FeatureStore

SEGMENTS = [
    Segment(f"{name}{i}", f"{name}.wav", 10.0 * i, 10.0 * i + 5 + i)
    for name in "ba"
    for i in range(6)
]


def test_units_hold_neighbours_and_no_more_audio_than_they_may():
    units = cut_units(SEGMENTS, 0.5)
    assert sorted(s.segment_id for unit in units for s in unit) == sorted(
        s.segment_id for s in SEGMENTS
    )
    assert all(sum(s.duration for s in unit) <= 30 for unit in units)
    edges = [(min((s.path, s.start) for s in u), max((s.path, s.start) for s in u)) for u in units]
    assert edges == sorted(edges)
    assert all(last < first for (_, last), (first, _) in pairwise(edges))


def test_a_segment_longer_than_a_unit_is_one_of_its_own():
    assert [len(unit) for unit in cut_units(SEGMENTS, 0.01)] == [1] * len(SEGMENTS)


def test_units_do_not_depend_on_the_order_of_the_table():
    assert cut_units(SEGMENTS[::-1], 0.5) == cut_units(SEGMENTS, 0.5)


def test_a_units_key_covers_its_segments_and_the_stores_configuration():
    unit = extraction_unit([SEGMENTS[:2], SEGMENTS[2:4]], "f")
    assert unit.name == "4 segments of b.wav"
    assert unit.payload == [SEGMENTS[:2], SEGMENTS[2:4]]
    others = [
        extraction_unit([SEGMENTS[:2], SEGMENTS[2:5]], "f"),
        extraction_unit([SEGMENTS[:2], SEGMENTS[2:4]], "g"),
    ]
    assert unit.key not in {other.key for other in others}
    assert unit.key == extraction_unit([SEGMENTS[:2], SEGMENTS[2:4]], "f").key


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ray_address": "10.0.0.1:6379"}, "--ray-address: value is '10.0.0.1:6379' beside"),
        ({"engine": "ray", "profile": "p.txt"}, "--profile: value is 'p.txt' beside --engine ray"),
        ({"engine": "dask"}, "--engine: value is 'dask', expected"),
        ({"unit_minutes": 0}, "--unit-minutes: value is 0"),
    ],
)
def test_settings_of_engines_that_exclude_each_other_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        ExtractOptions(**settings)


def test_the_devices_are_left_to_ray(tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    options = ExtractOptions(engine="ray", device="cuda:0,cuda:1", encoder="untrained")
    with pytest.raises(InputError, match="--device: value is 'cuda:0,cuda:1' beside --engine ray"):
        run_extraction(table_of(tmp_path), tmp_path / "store", options)


def test_without_the_extra_the_command_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    options = ExtractOptions(engine="ray", encoder="untrained")
    with pytest.raises(InputError, match=r'`pip install "spk-toolkit\[ray\]"`'):
        run_extraction(table_of(tmp_path), tmp_path / "store", options)
    with pytest.raises(InputError):
        FeatureStore.open(tmp_path / "store")


def table_of(folder):
    return noise_meeting(folder, "a.wav", [(0.0, 0.5), (0.5, 1.0)])
