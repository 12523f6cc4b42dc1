"""A file's format is known by its suffix, or by how it begins."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.common.errors import InputError
from spk.manifests.formats.registry import FORMATS, read_turns, write_turns

TABLE = pd.DataFrame({"session": ["S1"], "speaker": "A", "start": 1.0, "end": 2.5})


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.suffixes])
def test_each_suffix_is_of_one_format_and_capitals_do_not_matter(tmp_path, name):
    for suffix in FORMATS[name].suffixes:
        if suffix != ".json.gz":  # which lhotse reads and nobody writes
            for path in (tmp_path / f"S1{suffix}", tmp_path / f"x/S1{suffix.upper()}"):
                if suffix in (".jsonl", ".jsonl.gz") and path.parent != tmp_path:
                    continue
                write_turns(TABLE, path)
                assert [turn[1:4] for turn in read_turns(path).turns] == [("A", 1.0, 2.5)]


@pytest.mark.parametrize("name", ["rttm", "textgrid", "vtt", "eaf", "whisperx", "seglst"])
@pytest.mark.parametrize("suffix", [".txt", ".data", ""])
def test_a_file_of_another_suffix_is_known_by_how_it_begins(tmp_path, name, suffix):
    (written,) = write_turns(TABLE, tmp_path / "out", name)
    written.rename(tmp_path / f"S1{suffix}")
    assert [turn[:4] for turn in read_turns(tmp_path / f"S1{suffix}").turns] == [
        ("S1", "A", 1.0, 2.5)
    ]


def test_json_of_lhotse_is_told_from_whisperx(tmp_path):
    write_turns(TABLE, tmp_path / "a.jsonl")
    text = (tmp_path / "a.jsonl").read_text().strip()
    (tmp_path / "a.json").write_text(f"[{text}]")
    assert [turn.session for turn in read_turns(tmp_path / "a.json").turns] == ["S1"]


def test_turns_to_a_recordings_end_are_read_with_its_folder(tmp_path):
    soundfile.write(tmp_path / "S1.wav", np.zeros(12000), 8000)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "utt2spk").write_text("S1 A\n")
    (tmp_path / "m.json").write_text('{"audio_filepath": "x/S1.wav", "speaker": "A"}')
    (tmp_path / "S1.rttm").write_text("SPEAKER S1 1 0 1.5 <NA> <NA> A <NA> <NA>\n")
    for name in ("d", "m.json", "S1.rttm"):
        (turn,) = read_turns(tmp_path / name, audio_root=tmp_path).turns
        assert turn[:4] == ("S1", "A", 0.0, 1.5)


def test_a_folder_of_several_formats_is_refused_unless_one_is_named(tmp_path):
    write_turns(TABLE, tmp_path / "a.rttm")
    write_turns(TABLE, tmp_path / "a.vtt")
    with pytest.raises(InputError, match="holds files of rttm, vtt, expected those of one format"):
        read_turns(tmp_path)
    assert len(read_turns(tmp_path, "vtt").turns) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no file of a known format"):
        read_turns(tmp_path / "empty")


@pytest.mark.parametrize("path", ["nowhere", "nowhere.rttm", "nowhere.txt"])
def test_what_is_not_there_is_named(tmp_path, path):
    with pytest.raises(InputError, match=path):
        read_turns(tmp_path / path)


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path):
    for call in (
        lambda: read_turns(tmp_path / "a.rttm", "stm"),
        lambda: write_turns(TABLE, tmp_path / "a.rttm", "stm"),
    ):
        with pytest.raises(InputError, match="format: 'stm' is given, expected one of rttm, whisp"):
            call()
    with pytest.raises(InputError, match=r"a\.stm: suffix is '\.stm', expected one of \.rttm"):
        write_turns(TABLE, tmp_path / "a.stm")
    with pytest.raises(InputError, match=r"a\.srt: suffix is '\.srt', expected \.vtt, or none for"):
        write_turns(TABLE, tmp_path / "a.srt", "vtt")
