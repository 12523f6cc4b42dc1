"""Tables, records and settings that are broken or hostile: what the commands tell of them."""

import json
from pathlib import Path

import pandas as pd
import pytest

from spk.manifests.table import write_table

HEAD = "segment_id,audio,start,end,speaker,session"
ROW = "a,a.wav,0,1.5,001,S1"
DEEP = "[" * 100_000
LATE = "t.csv: end of 1 row is too late, first 1e+308 in row 1, expected at most 1e+07 s"


def rows(*lines, head=HEAD):
    return "\n".join([head, *lines, ""])


TABLES = {
    "0 bytes": ("", "t.csv: is empty, 0 bytes, expected a table; write it again"),
    "binary": (bytes(range(256)), "t.csv: byte 216 is not UTF-16, expected UTF-8 or"),
    "GBK": (rows(ROW.replace("001", "张")).encode("gbk"), "it looks like GBK: mv t.csv t.csv.gbk"),
    "an open quote": (rows('"a,a.wav,0'), "t.csv: cannot be read ("),
    "more fields than columns": (rows(ROW, ROW + ",x"), "t.csv: cannot be read ("),
    "a column missing": (
        rows("a,a.wav,0,1,001", head=HEAD.removesuffix(",session")),
        "t.csv: columns ['session'] are missing, found",
    ),
    "a misspelt column": (
        rows(ROW, head=HEAD.replace("speaker", "speker")),
        "t.csv: columns ['speaker'] are missing, found ['segment_id', 'audio', 'start', 'end', "
        "'speker', 'session']; rename 'speker' to 'speaker'",
    ),
    "a column without a name": (rows(ROW + ",x"), "t.csv: cannot be read ("),
    "a column twice": (
        rows(ROW + ",x", head=HEAD + ",session"),
        "column 'session' occurs twice, expected once; delete one",
    ),
    "text for a time": (rows("a,a.wav,0,late,001,S1"), "column 'end' holds what is not float64"),
    "no time": (rows("a,a.wav,0,,001,S1"), "t.csv: column 'end' holds what is not float64"),
    "NaN": (rows("a,a.wav,0,nan,001,S1"), "t.csv: "),
    "infinite": (rows("a,a.wav,0,inf,001,S1"), "t.csv: end of 1 row is not a finite number"),
    "1e308": (rows("a,a.wav,0,1e308,001,S1"), LATE),
    "backwards": (rows("a,a.wav,2,1,001,S1"), "start of 1 row is below 0 or not before its end"),
    "an id twice": (rows(ROW, ROW), "t.csv: segment_id of 1 row is given before, first 'a' in"),
    "no speaker": (rows("a,a.wav,0,1,,S1"), "t.csv: speaker of 1 row is empty, first '' in row"),
    "half a line": (rows(ROW + ",1.5", head=HEAD + ",line"), "column 'line' holds what is not int"),
    "a line beyond 64 bits": (rows(ROW + ",1" + "0" * 30, head=HEAD + ",line"), "column 'line'"),
    "overlap": (rows(ROW + ",1.5", head=HEAD + ",overlap"), "overlap of 1 row is out of range"),
    "split": (
        rows(ROW + ",tset", head=HEAD + ",split"),
        "split of 1 row is unknown, first 'tset'",
    ),
    "zero byte": (rows("a,a\0b.wav,0,1.5,001,S1"), "t.csv: "),
    "an escape sequence": (
        rows("a,a.wav,0,1.5,\x1b[2J,S1"),
        "speaker of 1 row is text with a control character, first '\\x1b[2J' in row 1, expected",
    ),
    "a line's end in a name": (
        rows('a,"a\nb.wav",0,1.5,001,S1'),
        "audio of 1 row is text with a control character, first 'a\\nb.wav' in row 1",
    ),
    "no rows": (rows(), "t.csv: 0 of 0 segments are left (min_seconds 0.1 drops 0); loosen"),
}
RECORD = {
    "method": "random",
    "parameters": {},
    "counts": {"train": 1},
    "purged": {},
    "leaky": True,
    "untrained": [],
    "untested": [],
}
RECORDS = {
    "no JSON": "{",
    "a list": "[1]",
    "nothing of it": "{}",
    "nested 100,000 times": DEEP,
    "counts that are text": json.dumps({**RECORD, "counts": {"train": "\x1b[2J"}}),
    "a method that is a list": json.dumps({**RECORD, "method": ["random"]}),
}
YAML = {
    "builds an object": ("seed: !!python/object/apply:os.system ['touch run']", "with the tag"),
    "makes a name": ("seed: !!python/name:os.system", "with the tag"),
    "tag on the whole": ("!!python/object:os.system {seed: 1}", "c.yaml: tag is 'tag:yaml"),
    "aliases that grow": (
        "seed: &a [x, x]\nepochs: [*a, *a]\n" + "".join(f"k{i}: [*a, *a]\n" for i in range(9)),
        "is unknown",
    ),
    "nested": ("seed: " + "[" * 5000, "cannot be read"),
    "binary": (bytes(range(256)), "cannot be read"),
    "two of a key": ("seed: 1\nseed: 2\n", "key 'seed' is given twice"),
    "text for a number": ("seed: many\n", "c.yaml: seed is 'many', expected"),
    "two megabytes": ("# " + "x" * 2_000_000, "size is over 1000000 bytes"),
}


def put(name, content):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("case", TABLES)
def test_a_bad_table_is_one_line(told, case):
    content, message = TABLES[case]
    put("t.csv", content)
    assert message in told("spk-manifests select t.csv out.csv --min-seconds 0.1")
    assert not Path("out.csv").exists()


@pytest.mark.parametrize(
    "command",
    [
        "spk-manifests describe t.csv",
        "spk-manifests split t.csv out.csv",
        "spk-manifests leaks t.csv",
        "spk-manifests cut t.csv out",
        "spk-extract t.csv store --encoder demo",
        "spk-extract t.csv store --encoder demo --plan",
        "spk-classify sweep t.csv store out",
        "spk-classify score p.csv --table t.csv",
        "spk-finetune fit t.csv --encoder demo",
    ],
)
def test_a_time_beyond_all_recordings_is_refused_by_every_command(told, command):
    """Its sample number would overflow."""
    put("t.csv", rows("a,a.wav,0,1e308,001,S1"))
    assert LATE in told(command)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_damaged_parquet_is_one_line(told, content):
    put("t.parquet", content)
    assert "t.parquet: cannot be read (" in told("spk-manifests describe t.parquet")


@pytest.mark.parametrize("case", RECORDS)
def test_a_bad_record_of_a_split_is_one_line(told, one_row, case):
    write_table(one_row().assign(split="test"), "t.csv")
    put("t.csv.split.json", RECORDS[case])
    message = "t.csv.split.json: cannot be read ("
    assert message in told("spk-manifests leaks t.csv")
    assert message in told("spk-manifests select t.csv out.csv")


@pytest.mark.parametrize("case", YAML)
def test_a_bad_settings_file_is_one_line_and_builds_nothing(told, case):
    content, message = YAML[case]
    put("c.yaml", content)
    put("t.csv", rows(ROW))
    assert message in told("spk-finetune fit t.csv --config c.yaml")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "ref.csv: is empty, 0 bytes"),
        ("path;lable\n", "ref.csv: columns ['label'] are missing, found ['path', 'lable']; rename"),
        ("path,label\n../../x_001_0003.wav,y\n", "expected {session}_{speaker}_{NNNN}.wav"),
        ("path,label\n/etc/.._001_0003.wav,.._001\n", "session is '..', expected a plain name"),
        ("path,label\nS1_001_0003.wav,S1_001\n", "S1_001_0003.wav: cannot be read (No such file"),
        (f"path,label\nS_1_{'9' * 5000}.wav,S_1\n", "expected {session}_{speaker}_{NNNN}.wav"),
    ],
)
def test_a_bad_reference_csv_is_one_line(told, content, message):
    put("ref.csv", content)
    assert message in told("spk-manifests csv ref.csv t.csv", longest=6000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "i.csv: is empty, 0 bytes"),
        (
            "session,speaker\nS1,1\n",
            "i.csv: columns ['person'] are missing, found ['session', 'speaker']",
        ),
        ("session,speaker,person\n", "i.csv: 1 of 1 speaker has no person, first '1'"),
        ("session,speaker,person\nS1,1,\n", "i.csv: person of 1 speaker is empty"),
        ("session,speaker,person\nS1,1,a\nS1,1,b\n", "i.csv: 1 speaker is named twice"),
        ("session,speaker,person\nS1,1,\x1b[2J\n", "speaker of 1 row is text with a control"),
    ],
)
def test_a_bad_identity_file_is_one_line(told, content, message):
    put("a.rttm", "SPEAKER S1 1 0 1 <NA> <NA> 1 <NA> <NA>\n")
    put("i.csv", content)
    assert message in told("spk-manifests rttm a.rttm t.csv --identity i.csv")


@pytest.mark.parametrize(
    "scores", [DEEP, "[]", '{"a": 2}', '{"a": NaN}', '{"a": "x"}', '{"a": 1e999}', "{}"]
)
def test_bad_scores_are_one_line(told, scores):
    row = {"segment_id": "a", "session": "S", "speaker": "a", "predicted": "a", "score": 1.0}
    pd.DataFrame([{**row, "split": "test", "model": "m", "scores": scores}]).to_csv("p.csv")
    table = pd.read_csv("p.csv", index_col=0)
    table.to_csv("p.csv", index=False)
    assert "p.csv: scores are " in told("spk-classify score p.csv")


@pytest.mark.parametrize(
    "plan",
    [
        "",
        "[[1]]",
        DEEP,
        '[["a.wav", "../out.wav"]]',
        '[["/etc/x", "b.wav"]]',
        '[["..", "b"]]',
    ],
)
def test_a_plan_of_renaming_moves_nothing_out_of_its_folder(told, plan):
    Path("cut").mkdir()
    put("cut/a.wav", "sound")
    put("list.csv", "path,label\nb.wav,x\n")
    from spk.manifests.cutting.rename import ASIDE

    put(f"cut/{ASIDE}", plan)
    message = "expected pairs of file names; delete it"
    assert message in told("spk-manifests match-csv --segments-dir cut --csv-path list.csv")
    assert Path("cut/a.wav").read_text() == "sound"
    assert not Path("out.wav").exists()
