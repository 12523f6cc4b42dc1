import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from spk.classify.naming.voices import Sample
from spk.classify.naming.voices_file import change_voices, load_voices, save_voices
from spk.common.errors import InputError


@pytest.fixture
def path(voices, tmp_path):
    samples = (Sample("Ann", "s1", "/a.wav", 1.0, 2.5, "1"),)
    save_voices(replace(voices, samples=samples), tmp_path / "team.voices")
    return tmp_path / "team.voices"


def changed(path, name, make):
    """Rewrite a member of the file."""
    with np.load(path) as arrays:
        members = {key: arrays[key] for key in arrays}
    members[name] = make(members[name])
    file = io.BytesIO()
    np.savez(file, **members)
    path.write_bytes(file.getvalue())


def described(path, **changes):
    def make(text):
        document = {**json.loads(text.tobytes()), **changes}
        return np.frombuffer(json.dumps(document).encode(), np.uint8)

    changed(path, "description", make)


def test_voices_that_are_written_and_read_are_the_same(path, voices, tmp_path):
    read = load_voices(path)
    assert np.array_equal(read.stretches.sums, voices.stretches.sums)
    for name in ("persons", "sessions", "seconds"):
        assert (getattr(read.stretches, name) == getattr(voices.stretches, name)).all()
    assert (read.config, read.layer, read.speech) == (voices.config, voices.layer, voices.speech)
    assert read.samples[0] == Sample("Ann", "s1", "/a.wav", 1.0, 2.5, "1")
    assert read.calibration.calibrator == voices.calibration.calibrator
    assert read.calibration.threshold(0.05) == voices.calibration.threshold(0.05)
    assert read.summary() == voices.summary()
    save_voices(read, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_voices_without_calibration_are_read(table, store, tmp_path):
    from spk.classify.naming.enrolment import enrol

    few = enrol(table[table["session"] == "s1"], store, layer=1, log=lambda line: None)
    save_voices(few, tmp_path / "few")
    read = load_voices(tmp_path / "few")
    assert read.calibration.calibrator is None
    assert read.calibration.threshold(0.05) == few.calibration.threshold_score


def test_what_is_there_is_kept_where_writing_fails(path, voices, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(
        "spk.common.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28))
    )
    with pytest.raises(InputError, match="cannot be written"):
        save_voices(voices, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_another_command_has_written_meanwhile_is_changed_and_not_lost(path, voices):
    """Two that take a person out at once: both persons are gone."""
    others, seen = [voices.names[0]], []

    def change(there):
        seen.append(there.names)
        while others:  # the other command, which is done first
            change_voices(path, lambda now: now.remove(others.pop()))
        return there.remove(voices.names[1])

    change_voices(path, change)
    assert load_voices(path).names == voices.names[2:]
    assert seen == [voices.names, voices.names[1:]]


def test_two_commands_do_not_replace_voices_at_the_same_time(path, voices, monkeypatch):
    """The second one waits for the first one's lock, whatever its moment."""
    from spk.classify.naming import voices_file

    def save(changed, where):
        asked = subprocess.run(
            [sys.executable, "-c", TRY_LOCK, where.parent],
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(asked.stdout)
        save_voices(changed, where)

    said = []
    monkeypatch.setattr(voices_file, "save_voices", save)
    change_voices(path, lambda there: there.remove(voices.names[0]))
    assert said == ["held\n"]


TRY_LOCK = """
import fcntl, os, sys
try:
    fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("free")
except BlockingIOError:
    print("held")
"""


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="no such file, expected voices; make it with spk name"):
        load_voices(tmp_path / "none")
    with pytest.raises(InputError, match="is a folder or device"):
        load_voices(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\3\4 no zip", b"\x93NUMPY\1\0"])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as voices"):
        load_voices(tmp_path / "a")


def test_a_file_cut_short_is_refused(path):
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot be read as voices"):
        load_voices(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "it is empty"), ('{"segments": []}', "it is a JSON file"), ("?", "it is of another")],
)
def test_another_kind_of_file_is_told_as_what_it_is(tmp_path, text, told):
    (tmp_path / "a").write_text(text)
    with pytest.raises(InputError, match=f"cannot be read as voices .{told}"):
        load_voices(tmp_path / "a")


def test_nothing_is_unpickled(path):
    changed(path, "seconds", lambda array: np.array([print], dtype=object))
    with pytest.raises(InputError, match="allow_pickle"):
        load_voices(path)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sums", lambda array: array[:, :-1]),
        ("sums", lambda array: np.full_like(array, np.nan)),
        ("sums", lambda array: array[:-1]),
        ("seconds", lambda array: -array),
        ("person", lambda array: array + 1),
        ("person", lambda array: array.astype(float)),
        ("session", np.zeros_like),
        ("strangers", lambda array: array[:0]),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(path, name, make):
    changed(path, name, make)
    with pytest.raises(InputError, match="cannot be read as voices"):
        load_voices(path)


def test_another_schema_or_fingerprint_is_refused(path):
    described(path, schema=9)
    with pytest.raises(InputError, match="schema is 9, expected 1"):
        load_voices(path)
    described(path, schema=1, fingerprint="0")
    with pytest.raises(InputError, match="the fingerprint is not that"):
        load_voices(path)


def test_a_member_that_claims_gigabytes_is_not_read(path, monkeypatch):
    monkeypatch.setattr("spk.classify.naming.voices_file.LARGEST", 1000)
    with zipfile.ZipFile(path) as archive:
        assert sum(member.file_size for member in archive.infolist()) > 1000
    with pytest.raises(InputError, match="more than voices hold"):
        load_voices(path)
