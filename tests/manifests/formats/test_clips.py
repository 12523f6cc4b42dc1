"""A folder of clips, one folder for each person, becomes a table."""

import numpy as np
import pytest
import soundfile

from spk.common.errors import InputError
from spk.manifests.formats.clips import read_clips


@pytest.fixture
def voices(tmp_path):
    """Return a folder with one clip of Zoë and two of Bob, and what is none."""
    for name, seconds in (("Zoë/1.wav", 0.5), ("Bob/1.wav", 0.25), ("Bob/2.FLAC", 1.0)):
        path = tmp_path / "voices" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(int(seconds * 16000)), 16000)
    (tmp_path / "voices" / "Bob" / "notes.txt").write_text("a good voice")
    (tmp_path / "voices" / ".hidden").mkdir()
    return tmp_path / "voices"


def test_a_clip_is_a_segment_of_the_person_whose_folder_it_lies_in(voices):
    lines = []
    table = read_clips(voices, log=lines.append)
    assert table["audio"].tolist() == ["Bob/1.wav", "Bob/2.FLAC", "Zoë/1.wav"]
    assert table["speaker"].tolist() == ["Bob", "Bob", "Zoë"]
    assert table["start"].tolist() == [0, 0, 0]
    assert table["end"].tolist() == [0.25, 1.0, 0.5]
    assert table["split"].tolist() == ["train"] * 3
    assert table["segment_id"].is_unique
    assert lines == [f"{voices}: 1 entry is passed over, first 'Bob/notes.txt'"]


def test_what_is_no_folder_of_voices_is_refused(voices, tmp_path):
    with pytest.raises(InputError, match=r"is no folder, expected FOLDER/NAME/\*\.wav"):
        read_clips(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds clips of 0 persons, expected 2 or more"):
        read_clips(voices / "Zoë")
    (voices / "Ann").mkdir()
    with pytest.raises(InputError, match=r"holds 0 recordings, expected at least 1 of 'Ann'"):
        read_clips(voices)
    (voices / "Ann" / "1.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"Ann/1\.wav: "):
        read_clips(voices)


def test_two_folders_of_one_name_are_refused(voices):
    (voices / "Zoe\u0308").mkdir()
    (voices / "Zoë" / "1.wav").rename(voices / "Zoe\u0308" / "2.wav")
    (voices / "Bob" / "1.wav").rename(voices / "Zoë" / "1.wav")
    with pytest.raises(InputError, match=r"'Zoe\\u0308' and 'Zo\\xeb' are the same name"):
        read_clips(voices)


def test_names_that_differ_by_capitals_alone_are_two_persons_and_told(voices):
    (voices / "bob").mkdir()
    (voices / "Bob" / "1.wav").rename(voices / "bob" / "1.wav")
    lines = []
    assert read_clips(voices, log=lines.append)["speaker"].tolist() == ["Bob", "Zoë", "bob"]
    assert f"{voices}: 'Bob' and 'bob' differ by capitals alone, and are two persons" in lines


def test_an_empty_recording_and_an_unusable_name_are_named(voices):
    soundfile.write(voices / "Bob" / "3.wav", np.zeros(0), 16000)
    with pytest.raises(InputError, match=r"Bob/3\.wav: holds 0 samples, .* replace or delete it"):
        read_clips(voices)
    (voices / "Bob").rename(voices / "<NA>")
    with pytest.raises(InputError, match=r"<NA>: name is '<NA>', .*; rename the folder"):
        read_clips(voices)
