"""Cues of SRT, WebVTT and timed text, in the variants that people's files have."""

import pytest

from spk.common.errors import InputError
from spk.manifests.formats.srt import read_srt
from spk.manifests.formats.txt import read_txt
from spk.manifests.formats.vtt import read_vtt

READERS = {"srt": read_srt, "vtt": read_vtt, "txt": read_txt}


def turns(folder, suffix, text, **options):
    path = folder / f"S1.{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    annotation = READERS[suffix](path, **options)
    return [(t.speaker, t.start, t.end, t.text) for t in annotation.turns]


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ("00:00:01,500 --> 00:00:02,250", 1.5, 2.25),
        ("00:00:01.500 --> 00:00:02.250", 1.5, 2.25),
        ("00:00:01,5 --> 00:00:02,04", 1.5, 2.04),
        ("00:01:39 --> 00:01:40", 99.0, 100.0),
        ("00:3:55,873 --> 00:4:00,000", 235.873, 240.0),
        ("01:02:03,004 --> 100:00:00,000", 3723.004, 360000.0),
        ("00:00:01,500 --> 00:00:02,250  X1:40 X2:600 Y1:20 Y2:50", 1.5, 2.25),
    ],
)
def test_times_of_every_writer_are_read(tmp_path, times, start, end):
    assert turns(tmp_path, "srt", f"1\n{times}\n[A]: x\n") == [("A", start, end, "x")]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_and_line_ends_are_read_alike(tmp_path, line_end, encoding):
    text = "139\n00:00:01,0 --> 00:00:02,0\n[王]: 你\n好\n\n00:00:03,0 --> 00:00:04,0\n[B]: y"
    data = text.replace("\n", line_end).encode(encoding)
    assert turns(tmp_path, "srt", data) == [("王", 1.0, 2.0, "你 好"), ("B", 3.0, 4.0, "y")]


@pytest.mark.parametrize(
    ("cue", "speaker", "text"),
    [
        ("[SPEAKER_00]: hello", "SPEAKER_00", "hello"),
        ("[A b]:", "A b", ""),
        ("(speaker 0)hello", "0", "hello"),
        ("Anna Lee: hello", "Anna Lee", "hello"),
        ("ANNA:\nhello\nthere", "ANNA", "hello there"),
        ("王小明：你好".replace("：", "： "), "王小明", "你好"),
        ('<font color="#fff"><b>Anna:</b> Tom &amp; I', "Anna", "Tom & I"),
        ("{\\an8}Anna: up", "Anna", "up"),
    ],
)
def test_the_forms_in_which_speakers_are_named_are_read(tmp_path, cue, speaker, text):
    text = [(speaker, 1.0, 2.0, text)]
    assert turns(tmp_path, "srt", f"1\n00:00:01,000 --> 00:00:02,000\n{cue}\n") == text


def test_a_file_has_one_form_and_a_colon_in_its_text_names_nobody(tmp_path):
    text = (
        "1\n00:00:01,000 --> 00:00:02,000\n[A]: x\n\n"
        "2\n00:00:02,000 --> 00:00:03,000\nNote: y\n\n"
        "3\n00:00:03,000 --> 00:00:04,000\n- one\n- two\n"
    )
    assert [turn[0] for turn in turns(tmp_path, "srt", text)] == ["A"]
    notes = read_srt(tmp_path / "S1.srt").notes
    assert [note.message for note in notes] == [
        "2 lines without speaker give no turn",
        "speakers, by the form 'brackets': 1 'A'; --speakers chooses the form",
    ]
    assert [turn[0] for turn in turns(tmp_path, "srt", text, speakers="colon")] == ["Note"]


def test_times_and_sentences_before_a_colon_are_no_speakers(tmp_path):
    for text in ("The time is 7:35.", "Well, he said: go", "http://x.y: z", "", "(x): y"):
        assert turns(tmp_path, "srt", f"00:00:01,0 --> 00:00:02,0\n{text}\n") == []


def test_a_number_without_a_blank_line_before_it_is_no_text(tmp_path):
    text = "1\n00:00:01,0 --> 00:00:02,0\n[A]: x\n2\n00:00:02,0 --> 00:00:03,0\n[A]: 7\n"
    assert [turn[3] for turn in turns(tmp_path, "srt", text)] == ["x", "7"]


VTT = """WEBVTT - a title
Kind: captions
Language: en

NOTE two
lines of a note

STYLE
::cue { color: red }

first cue
00:16.500 --> 00:00:18.500 line:0 align:start
<v.loud Anna Lee>When <00:17.500>the <i>moon</i></v>

00:01:18.500 --> 00:01:20.500
<v Tom &amp; Co>hits<v\tEva>your &lt;eye&gt;

2
00:02:20.500 --> 00:02:21.500
<v>nobody
"""


def test_webvtt_with_all_its_parts_is_read(tmp_path):
    assert turns(tmp_path, "vtt", VTT) == [
        ("Anna Lee", 16.5, 18.5, "When the moon"),
        ("Tom & Co", 78.5, 80.5, "hits"),
        ("Eva", 78.5, 80.5, "your <eye>"),
    ]
    assert turns(tmp_path, "vtt", "\ufeff" + VTT.replace("\n", "\r\n")) == turns(
        tmp_path, "vtt", VTT
    )


def test_webvtt_without_voices_is_read_by_the_forms_of_other_writers(tmp_path):
    zoom = "WEBVTT\n\n1\n00:00:01.000 --> 00:00:02.000\nAnna Lee: hello\n"
    assert turns(tmp_path, "vtt", zoom) == [("Anna Lee", 1.0, 2.0, "hello")]
    assert turns(tmp_path, "vtt", zoom, speakers="voice") == []


@pytest.mark.parametrize("text", ["WEBVTT", "WEBVTT\n", "WEBVTT\tx\n\n", ""])
def test_a_webvtt_without_cues_has_no_turns(tmp_path, text):
    assert turns(tmp_path, "vtt", text) == []


def test_timed_text_goes_on_in_lines_without_times(tmp_path):
    text = "[00:00.000 --> 00:02.000]  [A]: x <b>\nmore\n[01:00:00.000 --> 01:00:01.5] [B]: y\n"
    assert turns(tmp_path, "txt", text) == [
        ("A", 0.0, 2.0, "x <b> more"),
        ("B", 3600.0, 3601.5, "y"),
    ]


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (
            "srt",
            "1\n00:00:01,0 --> x\n[A]: x\n",
            r"line 2: times are '00:00:01,0 --> x', expected H",
        ),
        ("srt", "00:00:02,0 --> 00:00:01,0\n[A]: x\n", "line 1: duration is '-1' s, expected > 0"),
        ("srt", "hello\n", "holds no line of times, expected an SRT with HH:MM:SS --> HH:MM:SS"),
        ("srt", "00:00:01,0 --> 00:00:02,0\n你好\n".encode("gbk"), "iconv"),
        ("vtt", "WEBVTTx\n\n00:01.0 --> 00:02.0\n", "line 1: is 'WEBVTTx', expected 'WEBVTT'"),
        ("vtt", " BROKENVTT\n", "line 1: is ' BROKENVTT', expected 'WEBVTT'"),
        ("vtt", "1\n00:00:01,0 --> 00:00:02,0\nx\n", "or name the file .srt where it is one"),
        ("vtt", "SPEAKER S1 1 0 1 <NA> <NA> A <NA>\n", "is an RTTM, .*; run spk-manifests rttm on"),
        ("txt", "[A]: hello\n", "is a JSON file|holds no line of times, expected a text with HH"),
        ("txt", "hello\n", "holds no line of times, expected a text with HH:MM:SS"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, suffix, text, message):
    with pytest.raises(InputError, match=message):
        turns(tmp_path, suffix, text)


def test_a_bad_cue_is_dropped_and_listed_where_that_is_wanted(tmp_path):
    text = "00:00:01,0 --> x\n[A]: x\n\n00:00:01,0 --> 00:00:02,0\n[A]: x\n"
    assert len(turns(tmp_path, "srt", text, skip_bad=True)) == 1
    assert read_srt(tmp_path / "S1.srt", skip_bad=True).notes[0][:2] == (
        "dropped",
        "S1.srt, line 1",
    )
