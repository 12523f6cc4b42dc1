"""Tables as spreadsheets save them are read as they were meant, or refused with what to do."""

import subprocess

import pandas as pd
import pytest
from click.testing import CliRunner

from spk.common.errors import InputError
from spk.manifests.cli import main
from spk.manifests.formats.build import read_identity
from spk.manifests.table import read_predictions, read_table, write_table
from spk.manifests.text_files.delimited import expected_names, read_delimited

HEAD = "segment_id,audio,start,end,speaker,session,line,split"
ROWS = ["a,a b.wav,0.5,1.5,001,S1,0,train", "b,a b.wav,2,3.25,王,NA,7,", "c,c.wav,3,4,=x,S1,8,test"]
PLAIN = "\n".join([HEAD, *ROWS, ""])


def cells(text):
    return [line.split(",") for line in text.strip().split("\n")]


def joined(rows, separator=",", end="\n"):
    return end.join(separator.join(row) for row in rows) + end


def decimal_commas(rows):
    header, *body = rows
    return [
        header,
        *([*r[:2], r[2].replace(".", ","), r[3].replace(".", ","), *r[4:]] for r in body),
    ]


DAMAGE = {
    "BOM and CRLF": ("\ufeff" + PLAIN.replace("\n", "\r\n")).encode,
    "old Mac": lambda: PLAIN.replace("\n", "\r").encode(),
    "quotes": lambda: joined([[f'"{c}"' for c in row] for row in cells(PLAIN)]).encode(),
    "semicolons": lambda: joined(cells(PLAIN), ";").encode(),
    "semicolons, decimal commas": lambda: joined(decimal_commas(cells(PLAIN)), ";").encode(),
    "tabs, decimal commas": lambda: joined(decimal_commas(cells(PLAIN)), "\t").encode("utf-16"),
    "tabs": lambda: joined(cells(PLAIN), "\t").encode(),
    "UTF-16": lambda: PLAIN.encode("utf-16"),
    "UTF-16 without a mark": lambda: PLAIN.encode("utf-16-le"),
    "Excel's sep line": ("sep=;\r\n" + joined(cells(PLAIN), ";", "\r\n")).encode,
    "empty rows": (PLAIN + ",,,,,,,\n\n,,,,,,,\n").encode,
    "empty columns": lambda: joined([[*row, "", ""] for row in cells(PLAIN)]).encode(),
    "an index": lambda: joined(
        [[n, *r] for n, r in zip(["", *"012"], cells(PLAIN), strict=True)]
    ).encode(),
    "an index, twice": lambda: joined(
        [[n, *r] for n, r in zip(["Unnamed: 0", *"579"], cells(PLAIN), strict=True)]
    ).encode(),
    "blanks after commas": lambda: PLAIN.replace(",", ", ").encode(),
    "line as 7.0": lambda: joined(
        [[*r[:6], r[6] + ".0" * (n > 0), r[7]] for n, r in enumerate(cells(PLAIN))]
    ).encode(),
    "another order": lambda: joined([row[::-1] for row in cells(PLAIN)]).encode(),
    "capitals": lambda: PLAIN.replace("split", " Split ").replace("speaker", "SPEAKER").encode(),
    "splits typed": lambda: PLAIN.replace(",train", ", Train").replace(",test", ",TEST ").encode(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_a_spreadsheet_does_to_a_table_changes_nothing(tmp_path, damage):
    (tmp_path / "t.csv").write_bytes(PLAIN.encode())
    (tmp_path / "other.csv").write_bytes(DAMAGE[damage]())
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "other.csv"), read_table(tmp_path / "t.csv")
    )


def test_a_table_in_gbk_is_read_after_the_command_that_the_message_names(tmp_path):
    (tmp_path / "t.csv").write_bytes(PLAIN.encode("gbk"))
    with pytest.raises(InputError, match="looks like GBK: mv ") as caught:
        read_table(tmp_path / "t.csv")
    command = str(caught.value).split("GBK: ")[1]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert read_table(tmp_path / "t.csv")["speaker"].tolist()[1] == "王"


def test_latin_letters_are_not_taken_for_gbk(tmp_path):
    (tmp_path / "t.csv").write_bytes(PLAIN.replace("001", "Jörg Müller").encode("cp1252", "ignore"))
    with pytest.raises(InputError, match="looks like CP1252: mv .* iconv -f CP1252"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN.replace("0.5", '"0,5"'), "column 'start' holds what is not float64"),
        (joined(cells(PLAIN), ";").replace("0.5", "1,234"), "column 'start' holds what is not"),
        (
            PLAIN.replace("speaker", "speakers"),
            r"\['speaker'\] are missing.*; rename 'speakers' to",
        ),
        (
            PLAIN.replace(",line", ",session"),
            "column 'session' occurs twice, expected once; delete",
        ),
        (PLAIN.replace("line", "").replace(",0,", ",x,"), "column 7 has no name but holds 'x'"),
        (PLAIN + "x,y\n", "column 'start' holds what is not float64"),
        (PLAIN.replace("c,c.wav", "c,c,.wav"), "cannot be read"),
    ],
)
def test_what_may_mean_two_things_is_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.csv")


def test_unknown_columns_go_along_through_select_split_and_parquet(tmp_path):
    rows = [
        f'{n},a.wav,{10 * n},{10 * n + 2},{"AB"[n % 2]},S1,00{n},"he said, ""no"""'
        for n in range(20)
    ]
    (tmp_path / "t.csv").write_text(
        "\n".join(["segment_id,audio,start,end,speaker,session,age,said", *rows, ""])
    )
    run = CliRunner().invoke
    t, s, p, d = (str(tmp_path / name) for name in ("t.csv", "s.parquet", "p.csv", "d.csv"))
    for words in (["select", t, s, "--min-seconds", "1"], ["split", s, p], ["select", p, d]):
        done = run(main, words)
        assert done.exit_code == 0, done.output
    made = read_table(d)
    assert made["age"].tolist() == [f"00{n}" for n in range(20)]
    assert set(made["said"]) == {'he said, "no"'}
    assert list(made.columns)[-2:] == ["age", "said"]


def test_a_carriage_return_in_an_unknown_column_comes_back(tmp_path):
    table = read_table_of(tmp_path, PLAIN).assign(said=["a\rb", "c\nd", ""])
    write_table(table, tmp_path / "again.csv")
    assert read_table(tmp_path / "again.csv")["said"].tolist() == ["a\rb", "c\nd", ""]


def read_table_of(folder, text):
    (folder / "t.csv").write_text(text)
    return read_table(folder / "t.csv")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "split",
            "splt",
            "column 'splt' is carried along but not used; if it is meant for 'split'",
        ),
        (
            "line",
            "lines",
            "column 'lines' is carried along but not used; if it is meant for 'line'",
        ),
        ("split", "Split", "column 'Split' is read as 'split'"),
        (
            "001",
            " 001",
            "speaker: 1 name is read in NFC without blanks at its ends, first ' 001' as",
        ),
        (",train", ",Train", "split of 1 row is read in lower case and without blanks"),
    ],
)
def test_normalised_names_are_reported_on_stderr(tmp_path, capsys, old, new, told):
    read_table_of(tmp_path, PLAIN.replace(old, new))
    assert told in capsys.readouterr().err


def test_a_plain_table_says_nothing(tmp_path, capsys):
    read_table_of(tmp_path, PLAIN.replace("line", "gender"))
    assert capsys.readouterr().err == ""


def test_names_similar_to_an_existing_column_are_not_reported():
    assert expected_names(["speaker", "speaker_id"], ["speaker"], "t")[1] == []


def test_two_spellings_of_a_speaker_are_one_and_its_scores_too(tmp_path, capsys):
    (tmp_path / "p.csv").write_text(
        "segment_id,session,speaker,predicted,score,split,model,scores\n"
        'a,S,Jo\u0308rg,Jörg ,0.5,test,m,"{""Jo\\u0308rg"": 0.5, ""B "": 0.5}"\n',
        encoding="utf-8",
    )
    (row,) = read_predictions(tmp_path / "p.csv").itertuples()
    assert row.speaker == row.predicted == "Jörg"
    assert row.scores == '{"J\\u00f6rg": 0.5, "B": 0.5}'
    assert "predicted: 1 name is read in NFC" in capsys.readouterr().err


def test_a_list_of_persons_may_come_from_a_spreadsheet(tmp_path):
    text = "Person;session;speaker;e-mail\nAnna ;S1;1;a@b\n Jo\u0308rg;S1;2;\nAnna;S1; 1;\n;;;\n"
    (tmp_path / "i.csv").write_bytes(text.encode("utf-16"))
    notes = []
    assert read_identity(tmp_path / "i.csv", notes) == {("S1", "1"): "Anna", ("S1", "2"): "Jörg"}
    assert [note.kind for note in notes] == ["columns", "renamed", "renamed"]


def test_a_placeholder_is_nobody(tmp_path):
    (tmp_path / "i.csv").write_text("session,speaker,person\nS1,1,<NA>\n")
    with pytest.raises(InputError, match=r"person of 1 speaker is <NA>, first that of '1' in"):
        read_identity(tmp_path / "i.csv")


def test_a_file_that_is_absent_is_reported_with_its_repair(tmp_path):
    with pytest.raises(InputError, match=r"x\.csv: no such file; correct the path"):
        read_delimited(tmp_path / "x.csv", ["path"], "correct the path")
    (tmp_path / "a.csv").touch()
    with pytest.raises(InputError, match=r"is a folder, expected a file; name one in it .a\.csv"):
        read_delimited(tmp_path, ["path"], "correct the path")
