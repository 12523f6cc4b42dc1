"""Any text and any bytes give a table or an `InputError`; what is written is read as it was."""

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spk.common.errors import InputError
from spk.common.names import is_placeholder, normal_name
from spk.manifests.table import MAX_SECONDS, read_table, segment_id, write_table

FEW = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WORDS = st.sampled_from(
    ["SPEAKER", "S1", "1", "0.5", "-1", "nan", "1e308", "1e6", "<NA>", "001-M", "=cmd()", "../x"]
)
LINES = st.lists(st.lists(WORDS, max_size=11).map(" ".join), max_size=5).map("\n".join)
MARKS = '"ooTextFile" "TextGrid" <exists> 0 1 9 "IntervalTier" "TextTier" "嗯" "" " [3] 1e999 ²'
QUOTED = st.sampled_from(MARKS.split())
GRIDS = st.lists(QUOTED, max_size=30).map(
    lambda words: " ".join(['"ooTextFile" "TextGrid" 0 9 <exists> 1', *words])
)
CELLS = st.sampled_from(
    ["", "a", "0", "1.5", "nan", "inf", "1e308", '"', "\0", "\r", "NA", "9" * 30]
)
HEADS = st.sampled_from(
    ["segment_id,audio,start,end,speaker,session", "path,label", "session,speaker,person"]
)
SHEETS = st.builds(
    lambda head, rows: "\n".join([head, *(",".join(row) for row in rows)]),
    HEADS,
    st.lists(st.lists(CELLS, min_size=2, max_size=7), max_size=4),
)


def as_bytes(texts):
    kinds = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
    return st.one_of(
        st.builds(lambda text, kind: text.encode(kind, "surrogatepass"), texts, kinds),
        st.builds(lambda text: text.encode(errors="replace"), st.text(max_size=60)),
        st.binary(max_size=60),
    )


def is_line(message):
    """Tell whether a refusal is one line with a place before a colon."""
    return message.count("\n") == 0 and ": " in message and message.strip() == message


@FEW
@given(data=as_bytes(LINES))
def test_any_bytes_are_turns_of_an_rttm_or_refused(fuzz, tmp_path, data):
    refusal = fuzz.refusal("rttm", data, tmp_path)
    assert refusal is None or is_line(refusal), refusal


@FEW
@given(data=as_bytes(GRIDS))
def test_any_bytes_are_turns_of_a_textgrid_or_refused(fuzz, tmp_path, data):
    refusal = fuzz.refusal("textgrid", data, tmp_path)
    assert refusal is None or is_line(refusal), refusal


MARKUP = """{ } [ ] : , "segments" "start" "end" "speaker" "A" 0 1.5 -1 1e400 null NaN "\\ud800"
"recording_id" "duration" "supervisions" "channel" <TIER> </TIER> <!DOCTYPE WEBVTT <v> </v> --> [A]:
00:00:01,5 0:01.25 99:99:99 &amp; &#0; file,start,end,speaker S1,0,1,A "audio_filepath" "a/b.wav"
"offset" "label" "rttm_filepath" "uniq_id" """
CUES = st.lists(st.sampled_from([*MARKUP.split(), "\n", "\n\n"]), max_size=40).map(" ".join)


@FEW
@given(kind=st.sampled_from([bytes([n]) for n in range(9)]), data=as_bytes(CUES))
def test_any_bytes_are_turns_of_another_format_or_refused(fuzz, tmp_path, kind, data):
    refusal = fuzz.refusal("turns", kind + data, tmp_path)
    assert refusal is None or is_line(refusal), refusal


@FEW
@given(data=st.data())
def test_damaged_files_of_other_formats_are_read_or_refused(fuzz, tmp_path, data):
    seed = bytearray(data.draw(st.sampled_from(fuzz.SEEDS["turns"])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(1, len(seed) - 1))
        seed[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    refusal = fuzz.refusal("turns", bytes(seed), tmp_path)
    assert refusal is None or is_line(refusal), refusal


@FEW
@given(kind=st.binary(min_size=1, max_size=1), data=as_bytes(SHEETS))
def test_any_bytes_are_a_table_or_refused(fuzz, tmp_path, kind, data):
    refusal = fuzz.refusal("csv", kind + data, tmp_path)
    assert refusal is None or is_line(refusal), refusal


@FEW
@given(kind=st.sampled_from([b"\0", b"\1", b"\2", b"\3", b"\4"]), data=st.binary(max_size=60))
def test_a_store_of_any_bytes_is_read_as_written_or_refused(fuzz, tmp_path, kind, data):
    refusal = fuzz.refusal("store", kind + data, tmp_path)
    assert refusal is None or is_line(refusal), refusal


@pytest.mark.parametrize("target", ["rttm", "textgrid", "turns", "csv", "store"])
def test_a_target_takes_and_refuses(fuzz, tmp_path, target):
    """A target that refuses all, or nothing, would find nothing."""
    taken = [fuzz.try_one(target, seed, tmp_path) for seed in fuzz.SEEDS[target]]
    assert any(taken)
    if target == "store":
        assert not all(taken)
    assert not fuzz.try_one(target, b"\0\xff\xfe\xff", tmp_path)


LETTERS = st.characters(exclude_categories=("Cc", "Cs"))
PATHS = st.text(LETTERS, min_size=1, max_size=12)
NAMES = PATHS.map(normal_name).filter(lambda name: name and not is_placeholder(name))
TIMES = st.floats(0, MAX_SECONDS / 2, allow_subnormal=False)
ROWS = st.lists(st.tuples(NAMES, NAMES, PATHS, TIMES, st.floats(1e-3, 1e4)), min_size=1, max_size=6)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@FEW
@given(rows=ROWS)
def test_a_table_of_any_text_comes_back_as_it_was(tmp_path, suffix, rows):
    table = pd.DataFrame(
        {
            "segment_id": [f"{n}{segment_id(row[0], row[1], 0, 1)}" for n, row in enumerate(rows)],
            "audio": [row[2] for row in rows],
            "start": [row[3] for row in rows],
            "end": [row[3] + row[4] for row in rows],
            "speaker": [row[1] for row in rows],
            "session": [row[0] for row in rows],
        }
    )
    path = tmp_path / f"t{suffix}"
    write_table(table, path)
    found = read_table(path)
    assert found.astype(object).equals(table.astype(object))


def test_input_error_alone_is_a_refusal(fuzz, tmp_path, monkeypatch):
    def broken(_data, _folder):
        raise KeyError("a bug")

    monkeypatch.setitem(fuzz.TARGETS, "rttm", broken)
    with pytest.raises(KeyError):
        fuzz.try_one("rttm", b"", tmp_path)
    monkeypatch.setitem(fuzz.TARGETS, "rttm", lambda *_: (_ for _ in ()).throw(InputError("no")))
    assert not fuzz.try_one("rttm", b"", tmp_path)
