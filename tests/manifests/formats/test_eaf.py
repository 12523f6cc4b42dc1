"""ELAN files of several writers: which tiers are speakers, and when each annotation was."""

import pytest

from spk.common.errors import InputError
from spk.manifests.formats.eaf import read_eaf

SLOTS = {"t1": 500, "t2": 1250, "t3": None, "t4": 3000, "t5": 2000}


def aligned(start, end, text=""):
    value = f"<ANNOTATION_VALUE>{text}</ANNOTATION_VALUE>"
    return (
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a" TIME_SLOT_REF1="{start}" '
        f'TIME_SLOT_REF2="{end}">{value}</ALIGNABLE_ANNOTATION></ANNOTATION>'
    )


REFERRING = (
    '<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="r" ANNOTATION_REF="a"><ANNOTATION_VALUE>x'
    "</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>"
)


def tier(name, content="", **attributes):
    more = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f'<TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="{name}"{more}>{content}</TIER>'


def write(folder, *tiers, units="milliseconds", head="", name="S1.eaf"):
    slots = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="{slot}"'
        + (f' TIME_VALUE="{value}"' if value is not None else "")
        + "/>"
        for slot, value in SLOTS.items()
    )
    text = (
        f"<?xml version='1.0' encoding='UTF-8'?>\n{head}<ANNOTATION_DOCUMENT FORMAT=\"2.7\">"
        f'<HEADER MEDIA_FILE="" TIME_UNITS="{units}"/><TIME_ORDER>{slots}</TIME_ORDER>'
        f"{''.join(tiers)}</ANNOTATION_DOCUMENT>"
    )
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def turns(path, **options):
    return [(t.speaker, t.start, t.end, t.text) for t in read_eaf(path, **options).turns]


PARENT = tier("Anna (words)", aligned("t1", "t2", "hi &amp; you"), PARTICIPANT="Anna")
CHILD = tier("xds@Anna", REFERRING, PARENT_REF="Anna (words)")
SUBDIVIDED = tier("sub", aligned("t1", "t2", "hi"), PARENT_REF="Anna (words)")


def test_aligned_tiers_without_parent_are_speakers_and_the_others_are_named(tmp_path):
    path = write(tmp_path, CHILD, SUBDIVIDED, PARENT, tier("empty"))
    assert turns(path) == [("Anna (words)", 0.5, 1.25, "hi & you")]
    assert [note.message for note in read_eaf(path).notes] == [
        "tiers: left out 'xds@Anna', 'sub'; --tiers chooses the speakers'"
    ]


def test_participants_are_taken_where_that_is_wanted(tmp_path):
    path = write(tmp_path, PARENT, tier("B", aligned("t2", "t4")))
    assert [turn[0] for turn in turns(path)] == ["Anna (words)", "B"]
    assert [turn[0] for turn in turns(path, participants=True)] == ["Anna", "B"]


def test_tiers_are_chosen_by_name_and_pattern(tmp_path):
    path = write(tmp_path, PARENT, SUBDIVIDED, tier("B", aligned("t2", "t4")))
    assert [turn[0] for turn in turns(path, tiers=["s*", "B"])] == ["sub", "B"]
    with pytest.raises(InputError, match=r"tiers are 'Anna \(words\)', .*, expected Z; correct"):
        turns(path, tiers=["Z"])


def test_an_empty_text_is_speech_and_what_has_no_time_is_counted(tmp_path):
    path = write(tmp_path, tier("A", aligned("t1", "t2") + aligned("t2", "t3") + REFERRING))
    assert turns(path) == [("A", 0.5, 1.25, "")]
    assert [note.message for note in read_eaf(path).notes] == [
        "2 annotations without time give no turn"
    ]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (aligned("t4", "t1"), {}, "S1.eaf, annotation 1: duration is '-2.5' s, expected > 0"),
        (
            aligned("t1", "t2"),
            {"units": "NTSC-frames"},
            "TIME_UNITS is 'NTSC-frames', expected 'mill",
        ),
        (
            aligned("t1", "t2"),
            {"head": '<!DOCTYPE x [<!ENTITY a "b">]>'},
            "has a document type, expected none as ELAN writes; delete it",
        ),
        ("<ANNOTATION>", {}, r"S1.eaf: is not XML \(mismatched tag"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, options, message):
    with pytest.raises(InputError, match=message):
        turns(write(tmp_path, tier("A", content), **options))


def test_times_that_are_no_whole_milliseconds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(SLOTS, "t1", "0.5")
    with pytest.raises(
        InputError, match="TIME_VALUE of 't1' is '0.5', expected whole milliseconds"
    ):
        turns(write(tmp_path, PARENT))


def test_another_kind_of_file_is_named(tmp_path):
    (tmp_path / "a.eaf").write_text("<?xml version='1.0'?>\n<Trans/>")
    with pytest.raises(InputError, match="a.eaf: is an XML file, expected an EAF"):
        turns(tmp_path / "a.eaf")
    (tmp_path / "b.eaf").write_text("hello")
    with pytest.raises(InputError, match="b.eaf: is not an EAF"):
        turns(tmp_path / "b.eaf")


def test_a_bad_annotation_and_a_bad_file_are_dropped_where_that_is_wanted(tmp_path):
    write(tmp_path, tier("A", aligned("t4", "t1") + aligned("t1", "t2")))
    (tmp_path / "b.eaf").write_text("hello")
    annotation = read_eaf(tmp_path, skip_bad=True)
    assert len(annotation.turns) == 1
    assert [note[:2] for note in annotation.notes] == [
        ("dropped", "S1.eaf, annotation 1"),
        ("dropped", "b.eaf"),
    ]
