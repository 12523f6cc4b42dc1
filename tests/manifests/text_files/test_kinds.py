"""A file of another kind is called what it is, and what makes an RTTM of it works when typed."""

import subprocess

import pytest

from spk.common.errors import InputError
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.formats.textgrid import read_textgrid
from spk.manifests.table import read_table
from spk.manifests.text_files.delimited import read_delimited
from spk.manifests.text_files.kinds import kind_of

CONVERTED = {  # file, content, what it is called
    "labels.txt": ("1.0\t4.5\tA\n5.0\t8.25\tB\n", "a label track of Audacity"),
    "S1.stm": (";; made\nS1 1 A 1.0 4.5 <o> hello\nS1 1 B 5 8.25\n", "an STM"),
}
EAF = "<ANNOTATION_DOCUMENT><TIME_ORDER>{}</TIME_ORDER>{}</ANNOTATION_DOCUMENT>"
SLOTS = '<TIME_SLOT TIME_SLOT_ID="{0}" TIME_VALUE="{0}"/>'
TIER = (
    '<TIER TIER_ID="{}"><ANNOTATION><ALIGNABLE_ANNOTATION TIME_SLOT_REF1="{}" TIME_SLOT_REF2="{}"/>'
    "</ANNOTATION></TIER>"
)
READ = {  # file, content, what it is called; another command reads it
    "segments": ("A_1 S1 1.00 4.50\nB_1 S1 5 8.25\n", "a Kaldi segments file"),
    "t.csv": ("start,end,speaker\n1.0,4.5,A\n5.0,8.25,B\n", "a list of turns"),
    "de.csv": ("Speaker;Start;End;Text\nA;1.0;4.5;x\nB;5.0;8.25;y\n", "a list of turns"),
    "s.tsv": ("session\tspeaker\tstart\tend\nS9\tA\t1.0\t4.5\nS9\tB\t5\t8.25\n", "a list of turns"),
    "a.json": (
        '[{"speaker": "A", "start": 1, "end": 4.5}, {"speaker": "B", "start": 5, "end": 8.25}]',
        "a JSON file",
    ),
    "manifest.json": (
        '{"audio_filepath": "S1.wav", "duration": 3.5, "label": "A", "offset": 1}\n'
        '{"audio_filepath": "S1.wav", "duration": 3.25, "label": "B", "offset": 5}\n',
        "a NeMo manifest",
    ),
    "a.srt": (
        "1\n00:00:01,000 --> 00:00:04,500\n[A]: x\n\n2\n00:00:05,000 --> 00:00:08,250\n[B]: y\n",
        "a subtitle file",
    ),
    "a.vtt": (
        "WEBVTT\n\n00:01.000 --> 00:04.500\n<v A>x\n\n00:05.000 --> 00:08.250\n<v B>y\n",
        "a subtitle file",
    ),
    "a.txt": (
        "[00:01.000 --> 00:04.500] [A]: x\n[00:05.000 --> 00:08.250] [B]: y\n",
        "a text with times",
    ),
    "a.eaf": (
        EAF.format(
            "".join(SLOTS.format(time) for time in (1000, 4500, 5000, 8250)),
            TIER.format("A", 1000, 4500) + TIER.format("B", 5000, 8250),
        ),
        "an ELAN file",
    ),
}
NAMED = {
    "elan.txt": ("A\t\t00:00:01.000\t00:00:04.000\thello\n", "tab-delimited text of ELAN"),
    "e2.txt": ("A\tA\t0:01.5\t0:04.0\t0:02.5\thello\n", "tab-delimited text of ELAN"),
    "a.trs": ('<?xml version="1.0"?>\n<Trans/>\n', "an XML file"),
    "a.uem": ("S1 1 0.0 60.0\n", "a UEM"),
    "a.ctm": ("S1 1 0.5 0.2 hello 0.9\n", "a CTM"),
    "t.csv": ("segment_id,audio,start,end,speaker,session\n", "a segment table"),
    "l.csv": ("path,label\na/S1_A_0000.wav,S1_A\n", "a list of cut files"),
    "p.csv": ("session,speaker,person\n", "a list of persons"),
}
BYTES = {
    "a.wav": (b"RIFF\x24\0\0\0WAVEfmt ", "a recording"),
    "a.mp3": (b"ID3\x04\0\0", "a recording"),
    "a.xlsx": (b"PK\x03\x04\x14\0", "a spreadsheet"),
    "a.TextGrid": (b"ooBinaryFile\x08TextGrid", "a binary file of Praat"),
    "a.gz": (b"\x1f\x8b\x08\0", "compressed"),
}


@pytest.mark.parametrize("file", CONVERTED)
def test_the_command_that_makes_an_rttm_is_typed_and_the_rttm_is_read(tmp_path, file):
    content, name = CONVERTED[file]
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=f"{file}: is {name}") as caught:
        read_rttm(tmp_path / file)
    command = str(caught.value).split("convert it, ")[1]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    (made,) = tmp_path.glob("*.rttm")
    turns = [(turn.speaker, turn.start, turn.end) for turn in read_rttm(made).turns]
    assert turns == [("A", 1.0, 4.5), ("B", 5.0, 8.25)]


@pytest.mark.parametrize("file", READ)
def test_the_command_that_reads_another_kind_is_typed_and_makes_the_table(tmp_path, typed, file):
    content, name = READ[file]
    (tmp_path / file).write_text(content)
    (tmp_path / "utt2spk").write_text("A_1 A\nB_1 B\n")
    for reader in (read_rttm, read_textgrid):
        with pytest.raises(InputError, match=f"{file}: is {name}") as caught:
            reader(tmp_path / file)
    command = str(caught.value).split("; run ")[1].split(" on ")[0].split(" or ")[0]
    table = tmp_path / "table.csv"
    done = typed(f"{command} '{tmp_path / file}' {table}")
    assert done.exit_code == 0, done.output
    rows = read_table(table)[["speaker", "start", "end"]]
    turns = [(who.rpartition("_")[2], *times) for who, *times in rows.itertuples(index=False)]
    assert turns == [("A", 1.0, 4.5), ("B", 5.0, 8.25)]


@pytest.mark.parametrize("file", NAMED)
def test_a_text_of_another_kind_is_named_with_a_way_on(tmp_path, file):
    content, name = NAMED[file]
    (tmp_path / file).write_text(content)
    for reader in (read_rttm, read_textgrid):
        with pytest.raises(InputError, match=f"{file}: is {name}.*, expected .*; ") as caught:
            reader(tmp_path / file)
        assert "--skip-bad" not in str(caught.value), "nothing would be left"


@pytest.mark.parametrize("file", BYTES)
def test_binary_files_are_identified_by_their_first_bytes(tmp_path, file):
    content, name = BYTES[file]
    (tmp_path / file).write_bytes(content)
    readers = (read_rttm, read_textgrid, lambda path: read_delimited(path, ["path"], "correct it"))
    for reader in readers:
        with pytest.raises(InputError, match=f"{file}: is {name}.*, expected a text file; "):
            reader(tmp_path / file)


def test_a_spreadsheet_under_a_tables_name_is_named(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"PK\x03\x04\x14\0")
    with pytest.raises(InputError, match=r"t\.csv: is a spreadsheet .*; save it as CSV \(UTF-8\)"):
        read_table(tmp_path / "t.csv")


def test_one_file_of_another_kind_in_a_folder_can_be_left_out(tmp_path):
    (tmp_path / "a.rttm").write_text("SPEAKER S1 1 1 2 <NA> <NA> A <NA> <NA>\n")
    (tmp_path / "b.rttm").write_text(READ["segments"][0])
    with pytest.raises(InputError, match=r"b\.rttm: is a Kaldi.*, or pass --skip-bad"):
        read_rttm(tmp_path)
    reading = read_rttm(tmp_path, skip_bad=True)
    assert [turn.session for turn in reading.turns] == ["S1"]
    assert [note[:2] for note in reading.notes] == [("dropped", "b.rttm")]


@pytest.mark.parametrize("text", ["", "hello", "a,b\n1,2\n", "SPEKER S1 1 0 1 <NA> <NA> A <NA>"])
def test_what_nobody_knows_is_not_guessed(text):
    assert kind_of(text, "x") is None
