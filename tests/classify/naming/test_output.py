import json
from pathlib import Path

import pandas as pd
import pytest

from spk.classify.naming.clusters import evidence
from spk.classify.naming.decision import name_clusters
from spk.classify.naming.options import NamingOptions
from spk.classify.naming.output import read_named, write_named
from spk.common.errors import InputError

WORDS = [
    {"word": "So", "start": 0.0, "end": 0.4, "score": 0.9, "speaker": "SPEAKER_00"},
    {"word": "7"},
]
DOCUMENT = {
    "segments": [
        {"start": 0, "end": 6.0, "text": " So, 7.", "words": WORDS, "speaker": "SPEAKER_00"},
        {"start": 7.25, "end": 13, "text": " Né?", "words": [], "speaker": "SPEAKER_01"},
        {"start": 14, "end": 15, "text": " Hm.", "words": []},
    ],
    "word_segments": [dict(word) for word in WORDS],
    "language": "pt",
}


@pytest.fixture
def named(voices, vectors_of):
    """Return a function that names turns by who is heard in each cluster."""

    def name(turns, people, **options):
        segments = evidence(turns)
        X = vectors_of([people[cluster] for cluster in segments["cluster"]])
        return name_clusters(voices, turns, segments, X, NamingOptions(**options))

    return name


@pytest.fixture
def turns():
    rows = [("SPEAKER_00", 0.0, 6.0, "So, 7."), ("SPEAKER_01", 7.25, 13.0, "Né?")]
    table = pd.DataFrame(rows, columns=["cluster", "start", "end", "text"])
    return table.assign(session="talk", channel="")


@pytest.fixture
def found(named, turns):
    return named(turns, {"SPEAKER_00": "Bo", "SPEAKER_01": "a stranger"})


@pytest.fixture
def whisperx(tmp_path):
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(DOCUMENT, ensure_ascii=False))
    return path


def test_a_whisperx_document_is_unchanged_but_for_its_speakers(found, whisperx, tmp_path):
    write_named(found, tmp_path / "out", diarization=whisperx)
    written = json.loads((tmp_path / "out" / "talk.json").read_text())
    chances = dict(zip(found.clusters["cluster"], found.clusters["probability"], strict=True))
    first = written["segments"][0]
    assert first["speaker"] == first["words"][0]["speaker"] == "Bo"
    assert first["diarized_speaker"] == written["word_segments"][0]["diarized_speaker"]
    assert first["speaker_confidence"] == int(1e4 * chances["SPEAKER_00"]) / 1e4
    assert written["segments"][1]["speaker"] == "unknown_1"

    def as_before(part):
        if isinstance(part, list):
            return [as_before(item) for item in part]
        if not isinstance(part, dict):
            return part
        kept = {k: as_before(v) for k, v in part.items() if k != "speaker_confidence"}
        if "diarized_speaker" in kept:
            kept["speaker"] = kept.pop("diarized_speaker")
        return kept

    assert as_before(written) == DOCUMENT


def test_other_diarizations_give_a_document_of_the_same_shape(found, tmp_path):
    write_named(found, tmp_path / "out")
    segments = json.loads((tmp_path / "out" / "talk.json").read_text())["segments"]
    assert [one["speaker"] for one in segments] == ["Bo", "unknown_1"]
    assert [one["diarized_speaker"] for one in segments] == ["SPEAKER_00", "SPEAKER_01"]
    assert (segments[1]["start"], segments[1]["text"]) == (7.25, "Né?")


def test_every_format_has_the_names_and_the_words(found, tmp_path):
    formats = ("rttm", "json", "csv", "srt", "vtt", "txt")
    written = write_named(found, tmp_path / "out", formats=formats)
    texts = {path.suffix: path.read_text() for path in written}
    assert texts[".rttm"].split()[7::10][:2] == ["Bo", "unknown_1"]
    assert "[Bo]: So, 7." in texts[".srt"]
    assert "<v Bo>So, 7." in texts[".vtt"]
    assert "[unknown_1]: Né?" in texts[".txt"]
    rows = pd.read_csv(tmp_path / "out" / "names.csv")
    columns = "session,cluster,name,probability,second,margin,seconds,purity,reason"
    assert ",".join(rows.columns) == columns
    assert rows["name"].tolist() == ["Bo", "unknown_1"]
    assert rows["reason"].fillna("").tolist() == ["", "stranger"]


def test_blanks_of_names_are_underscores_in_rttm_alone(table, store, turns, vectors_of, tmp_path):
    from spk.classify.naming.enrolment import enrol

    people = table.assign(speaker=table["speaker"].replace("Bo", "Bo van Ek"))
    voices = enrol(people, store, layer=1, log=lambda line: None)
    segments = evidence(turns)
    named = name_clusters(voices, turns, segments, vectors_of(["Bo", "a stranger"]))
    write_named(named, tmp_path / "out")
    assert " Bo_van_Ek " in (tmp_path / "out" / "talk.rttm").read_text()
    segments = json.loads((tmp_path / "out" / "talk.json").read_text())["segments"]
    assert segments[0]["speaker"] == "Bo van Ek"
    rows, enrolled = read_named(tmp_path / "out")
    assert (rows["cluster"].iloc[0], "Bo van Ek" in enrolled) == ("Bo_van_Ek", True)


def test_each_session_has_files_of_its_own(named, turns, tmp_path):
    two = pd.concat([turns, turns.assign(session="later")])
    found = named(two, {"SPEAKER_00": "Bo", "SPEAKER_01": "Ann"})
    names = {path.name for path in write_named(found, tmp_path / "out")}
    assert names == {"names.csv", "talk.rttm", "talk.json", "later.rttm", "later.json"}


def content_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_names_may_be_written_twice_and_formats_added(found, tmp_path):
    write_named(found, tmp_path / "out")
    before = content_of(tmp_path / "out")
    write_named(found, tmp_path / "out")
    assert content_of(tmp_path / "out") == before
    write_named(found, tmp_path / "out", formats=["srt"])
    assert {*content_of(tmp_path / "out")} == {*before, "talk.srt"}
    files = json.loads((tmp_path / "out" / "naming.json").read_text())["files"]
    assert files == ["names.csv", "talk.json", "talk.rttm", "talk.srt"]


def test_other_names_replace_all_files_or_none(named, found, turns, tmp_path):
    write_named(found, tmp_path / "out", formats=("rttm", "csv", "srt"))
    before = content_of(tmp_path / "out")
    other = named(turns, {"SPEAKER_00": "Ann", "SPEAKER_01": "Bo"}, threshold=0.3)
    with pytest.raises(InputError, match="exists with other content.*--overwrite"):
        write_named(other, tmp_path / "out", formats=("rttm", "csv"))
    assert content_of(tmp_path / "out") == before
    write_named(other, tmp_path / "out", formats=("rttm", "csv"), overwrite=True)
    assert {*content_of(tmp_path / "out")} == {"naming.json", "names.csv", "talk.rttm"}


def test_a_list_that_was_edited_by_hand_is_kept(found, tmp_path):
    write_named(found, tmp_path / "out")
    (tmp_path / "out" / "names.csv").write_text("edited")
    before = content_of(tmp_path / "out")
    with pytest.raises(InputError, match="names.csv: exists with other content"):
        write_named(found, tmp_path / "out", formats=("rttm", "csv", "srt"))
    assert content_of(tmp_path / "out") == before


def test_neither_an_input_nor_a_file_of_others_is_replaced(found, whisperx, tmp_path):
    with pytest.raises(InputError, match="also the input DIARIZATION"):
        write_named(found, whisperx.parent, diarization=whisperx, overwrite=True)
    assert json.loads(whisperx.read_text()) == DOCUMENT
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "names.csv").write_text("my own list")
    with pytest.raises(InputError, match="holds 'names.csv' and no naming.json"):
        write_named(found, tmp_path / "mine", overwrite=True)


def test_a_folder_without_names_is_not_scored(tmp_path):
    with pytest.raises(InputError, match="no naming.json can be read there"):
        read_named(tmp_path)
    (tmp_path / "naming.json").write_text('{"enrolled": ["Ann"]}')
    with pytest.raises(InputError, match="holds 0 RTTMs, expected those of spk name apply"):
        read_named(Path(tmp_path))
