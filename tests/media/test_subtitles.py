import logging
import string
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt4_video.media import (
    Cue,
    MediaError,
    SubtitleSource,
    align,
    as_webvtt,
    find_subtitles,
    read_frames,
    read_subtitles,
    subtitle_sources,
)
from numbered import numbers_of, without_its_beginning, write_sound, write_video

SRT = "1\n00:00:01,000 --> 00:00:02,500\nhello there\n\n2\n00:00:03,000 --> 00:00:04,000\nsecond\nline\n"
CUES = [Cue(1.0, 2.5, "hello there"), Cue(3.0, 4.0, "second line")]


def written(folder: Path, text: str | bytes, name: str = "clip.srt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        SRT,
        SRT.replace("\n", "\r\n"),
        SRT.replace("\n", "\r"),
        SRT.replace(",", "."),
        SRT.replace("1\n00", "00").replace("2\n00", "00"),
        SRT.replace("00:00:0", "00:0"),
        "WEBVTT - title\n\nNOTE a remark\n\nSTYLE\n::cue { color: red }\n\n" + SRT.replace(",", "."),
        "\ufeff" + SRT,
        SRT.replace("hello", "<i>hello</i>").replace("second", "{\\an8}<font color='red'>second</font>"),
        SRT.replace("02,500", "02,500 X1:10 X2:20 align:start"),
        SRT + "\n3\n00:00:09,000 --> 00:00:10,000\n\n\n4\n00:00:11,000 --> 00:00:12,000\n<b> </b>\n",
    ],
)
def test_the_two_cues_are_read_in_every_spelling(tmp_path: Path, text: str) -> None:
    assert read_subtitles(written(tmp_path, text)) == CUES


def test_cues_come_by_their_start(tmp_path: Path) -> None:
    text = "00:00:05.000 --> 00:00:06.000\nlater\n\n00:00:01.000 --> 00:00:09.000\nearlier\n"
    assert [cue.text for cue in read_subtitles(written(tmp_path, text))] == ["earlier", "later"]


@pytest.mark.parametrize(
    ("fraction", "seconds"),
    [
        ("", 2.0),
        (",5", 2.5),
        (",05", 2.05),
        (".500", 2.5),
        (".500000", 2.5),
        (",000750", 2.00075),
        (":123456789", 2.123456789),
    ],
)
def test_digits_behind_the_seconds_are_a_fraction_however_many_there_are(
    tmp_path: Path, fraction: str, seconds: float
) -> None:
    """Python's timedelta writes none or six."""
    text = f"1\n0:00:02{fraction} --> 0:00:05\nhello\n\n2\n0:00:05 --> 0:00:07\nbye\n"
    assert read_subtitles(written(tmp_path, text)) == [Cue(seconds, 5.0, "hello"), Cue(5.0, 7.0, "bye")]
    if fraction:
        event = f"Dialogue: 0,0:00:02{fraction.replace(',', '.')},0:00:05.00,A,,0,0,0,,hello\n"
        assert read_subtitles(written(tmp_path, event, "clip.ass")) == [Cue(seconds, 5.0, "hello")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("<v Anna>hi</v>", "Anna: hi"),
        ("<v.loud Anna Maria>hi</v> <v Ben>ho</v>", "Anna Maria: hi Ben: ho"),
        ("hello<00:00:01.500><c> world</c>", "hello world"),
        ("<c.yellow.bg_blue>go</c> &amp; <ruby>漢<rt>kan</rt></ruby>", "go & 漢kan"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("- yes\n- no", "- yes - no"),
    ],
)
def test_markup_goes_and_speakers_stay(tmp_path: Path, line: str, words: str) -> None:
    text = f"WEBVTT\n\n00:01.000 --> 00:02.000 line:0\n{line}\n"
    assert read_subtitles(written(tmp_path, text, "clip.vtt")) == [Cue(1.0, 2.0, words)]


def test_substation_alpha_keeps_names_and_drops_drawings_and_damaged_events(tmp_path: Path) -> None:
    text = (
        "[Script Info]\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        "Dialogue: 0,0:00:03.00,0:00:04.50,Default,Anna,0,0,0,,{\\i1}one{\\i0}, two\\Nthree\n"
        "Comment: 0,0:00:03.00,0:00:04.50,Default,,0,0,0,,not shown\n"
        "Dialogue: 0,0:00:05.00,0:00:06.00,Default,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}\n"
        "Dialogue: 0,bad,0:00:06.00,Default,,0,0,0,,no time\n"
        "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{a remark}first\n"
    )
    for name in ("clip.ass", "clip.ssa"):
        assert read_subtitles(written(tmp_path, text, name)) == [
            Cue(1.0, 2.0, "first"),
            Cue(3.0, 4.5, "Anna: one, two three"),
        ]


def test_the_word_of_substation_alpha_in_a_line_that_is_said_is_a_word(tmp_path: Path) -> None:
    text = SRT.replace("second", "Dialogue: none, at 0:00:01.00")
    assert read_subtitles(written(tmp_path, text)) == [CUES[0], Cue(3.0, 4.0, "Dialogue: none, at 0:00:01.00 line")]


def test_the_other_kind_of_sub_files_is_read(tmp_path: Path) -> None:
    text = "[INFORMATION]\n[TITLE]x\n[END INFORMATION]\n00:00:01.00,00:00:02.50\nhello[br]world\n\n"
    path = written(tmp_path, text + "00:00:03.00,00:00:04.00\nbye\n", "clip.sub")
    assert read_subtitles(path) == [Cue(1.0, 2.5, "hello world"), Cue(3.0, 4.0, "bye")]


def test_pictures_of_text_beside_a_video_are_told_from_text(tmp_path: Path) -> None:
    """VobSub's, which share a suffix with MicroDVD's and SubViewer's."""
    path = written(tmp_path, b"\0\0\1\xba\x44\0\4\0\4\1\1\x89\xc3\xf8\0\0\1\xbd" + bytes(2030), "clip.sub")
    with pytest.raises(MediaError, match=r"clip\.sub holds pictures of text, not text; use an \.srt"):
        read_subtitles(path)


def test_every_source_is_named_in_the_order_in_which_to_take_them(tmp_path: Path) -> None:
    said = [("ger", 0.0, 1.0, "Wort"), ("spa", 0.0, 1.0, "si"), ("eng", 0.0, 1.0, "yes")]
    video = write_video(tmp_path / "clip.mkv", range(25), subtitles=said)
    files = [written(tmp_path, SRT, name) for name in ("clip.srt", "clip.en.srt", "clip.es.vtt", "clip.fr.ass")]
    tracks = [SubtitleSource(video, number, language) for number, (language, *_) in enumerate(said)]
    beside = [SubtitleSource(file, None, file.stem[5:] or None) for file in files]
    assert list(subtitle_sources(video)) == [*beside, *tracks]
    plain, english, spanish, french = beside
    assert list(subtitle_sources(video, "es")) == [spanish, tracks[1], plain, english, french, tracks[0], tracks[2]]
    assert list(subtitle_sources(video, "ja")) == [*beside, *tracks]


def test_broken_documents_and_absurd_frame_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is not a subtitle file that can be read"):
        read_subtitles(
            written(tmp_path, '<?xml version="1.0"?><tt xmlns="http://www.w3.org/ns/ttml"><body>', "clip.srt")
        )


def test_frame_counts_become_seconds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_subtitles(written(tmp_path, "{1}{1}50\n{100}{150}a|b\n", "clip.sub")) == [Cue(2.0, 3.0, "a b")]
    with caplog.at_level(logging.WARNING):
        assert read_subtitles(written(tmp_path, "{100}{150}{y:i}a\n", "clip.sub")) == [Cue(4.0, 6.0, "a")]
    assert "25 a second are assumed" in caplog.text


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        ("Где ты был вчера вечером? Я искал тебя весь день.", "utf-16"),
        ("Где ты был вчера вечером? Я искал тебя весь день.", "utf-8-sig"),
        ("Где ты был вчера вечером? Я искал тебя весь день.", "cp1251"),
        ("今天我们去公园散步，天气非常好，大家都很高兴。", "gb18030"),
        ("今日は公園を散歩します。とても楽しいです。", "shift_jis"),
        ("今天我們去公園散步，天氣非常好，大家都很高興。", "big5"),
        ("今天我们去公园散步，天气非常好，大家都很高兴。", "gbk"),
        ("Où est passé le garçon ? Il était là, près de l'école.", "cp1252"),
        ("Où est passé le garçon ? Il était là, près de l'école.", "latin-1"),
        ("La verità è là fuori. Sì, è già tardi.", "cp1252"),
        ("Később jövök, ígérem. Őt várom.", "cp1250"),
        ("Később jövök, ígérem. Őt várom.", "iso8859-2"),
        ("Müller úr, Jäger később jön: ígéri, hogy itt áll a nő előtt, és ő várja őt. Később jövök, ígérem.", "cp1250"),
    ],
)
def test_the_encoding_is_found(tmp_path: Path, words: str, encoding: str) -> None:
    text = "".join(f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{words}\n\n" for n in range(1, 6))
    path = written(tmp_path, text.encode(encoding))
    assert {cue.text for cue in read_subtitles(path)} == {words}


def test_an_encoding_that_is_named_is_used(tmp_path: Path) -> None:
    path = written(tmp_path, SRT.replace("hello", "Ça").encode("cp437"))
    assert read_subtitles(path, encoding="cp437")[0].text == "Ça there"
    with pytest.raises(MediaError, match="is not written in ascii"):
        read_subtitles(path, encoding="ascii")
    with pytest.raises(MediaError, match="There is no encoding 'klingon'"):
        read_subtitles(path, encoding="klingon")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"WEBVTT\n\n", "holds no subtitle"),
        (b"no times here\n", "is not a subtitle file that can be read"),
        (bytes(range(256)) * 20, "is not a"),
    ],
)
@pytest.mark.parametrize("name", ["clip.srt", "clip.bin"])
def test_what_holds_no_subtitle_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, says: str, name: str
) -> None:
    with pytest.raises(MediaError) as error:
        read_subtitles(written(tmp_path, content, name))
    assert says in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_missing_subtitles_are_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"There is no file .*absent\.srt"):
        read_subtitles(tmp_path / "absent.srt")


@pytest.mark.parametrize(("name", "codec"), [("clip.mkv", "srt"), ("clip.mkv", "ass"), ("clip.mp4", "mov_text")])
def test_tracks_inside_a_video_are_read(tmp_path: Path, name: str, codec: str) -> None:
    said = [("eng", 0.5, 1.0, "hello {\\i1}you{\\i0}"), ("eng", 1.0, 1.5, "again"), ("fre", 0.5, 1.5, "oui")]
    path = write_video(tmp_path / name, range(50), subtitles=said, subtitle_codec=codec)
    assert read_subtitles(path) == [Cue(0.5, 1.0, "hello you"), Cue(1.0, 1.5, "again")]
    assert read_subtitles(path, track=1) == [Cue(0.5, 1.5, "oui")]
    assert find_subtitles(path) == SubtitleSource(path, 0, "eng")
    with pytest.raises(MediaError, match="has 2 subtitle tracks, so none with the number 2"):
        read_subtitles(path, track=2)


def test_a_video_without_subtitles_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", range(5))
    assert find_subtitles(path) is None
    for silent in (path, write_sound(tmp_path / "sound.wav")):
        with pytest.raises(MediaError, match="holds no subtitle track with text"):
            read_subtitles(silent)


def test_a_file_beside_the_video_is_taken_before_a_track_in_it(tmp_path: Path) -> None:
    video = write_video(tmp_path / "my.clip.mkv", range(50), subtitles=[("eng", 0.0, 1.0, "inside")])
    written(tmp_path, SRT, "other.srt")
    written(tmp_path, SRT, "my.clip.txt")
    written(tmp_path, SRT, "my.clip 2.srt")
    assert find_subtitles(video) == SubtitleSource(video, 0, "eng")
    for name, language in (("my.clip.zh.vtt", "zh"), ("my.clip.en.SRT", "en"), ("my.clip.vtt", None)):
        path = written(tmp_path, SRT, name)
        assert find_subtitles(video) == SubtitleSource(path, None, language)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(0, 10**5), st.text(string.ascii_letters + "é中", min_size=1)),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, said: list[tuple[int, int, str]]) -> None:
    def clock(ms: int) -> str:
        return f"{ms // 3600000:02d}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"

    text = "".join(f"{clock(start)} --> {clock(start + length)}\n{words}\n\n" for start, length, words in said)
    expected = [Cue(start / 1000, (start + length) / 1000, words) for start, length, words in said]
    path = written(tmp_path_factory.mktemp("subtitles"), text)
    assert sorted(read_subtitles(path)) == sorted(expected)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text("0123456789:,.->\n <>{}\\[]WEBVTabc\r\0", max_size=300)))
def test_no_file_does_worse_than_a_media_error(tmp_path_factory: pytest.TempPathFactory, content: bytes | str) -> None:
    path = written(tmp_path_factory.mktemp("subtitles"), content)
    try:
        cues = read_subtitles(path)
    except MediaError:
        return
    assert cues and all(0 <= cue.start <= cue.end and cue.text.strip() for cue in cues)


def test_a_tracks_times_count_from_the_first_frame(tmp_path: Path) -> None:
    said = [("eng", 5.5, 6.0, "late")]
    path = write_video(tmp_path / "late.mkv", range(5000, 8000, 40), Fraction(1, 1000), subtitles=said)
    assert read_subtitles(path) == [Cue(0.5, 1.0, "late")]


def test_a_track_beside_pictures_that_are_never_shown_counts_from_the_first_that_is(tmp_path: Path) -> None:
    said = [("eng", 2.0, 3.0, "frame 50")]
    whole = write_video(tmp_path / "whole.mkv", range(100), g="25", bf="0", sc_threshold="0", subtitles=said)
    path = without_its_beginning(whole, tmp_path / "cut.mkv")
    (cue,) = read_subtitles(path)
    assert cue == pytest.approx((1.0, 2.0, "frame 50")) and numbers_of(read_frames(path, [cue.start]).frames) == [50]


ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.000 --> 00:00:02.000 align:start position:0%
 
first<00:00:00.500><c> words</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
first words
 

00:00:02.010 --> 00:00:04.000 align:start position:0%
first words
and<00:00:02.500><c> then</c><00:00:03.000><c> more</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
and then more
 

00:00:04.010 --> 00:00:06.000 align:start position:0%
and then more
the<00:00:05.000><c> end</c>
"""


def test_rolling_captions_are_told_once(tmp_path: Path) -> None:
    assert read_subtitles(written(tmp_path, ROLLING, "clip.vtt")) == [
        Cue(0.0, 2.0, "first words"),
        Cue(2.01, 4.0, "and then more"),
        Cue(4.01, 6.0, "the end"),
    ]


def test_what_people_say_twice_is_kept(tmp_path: Path) -> None:
    lines = ["Stop!", "Stop!", "Why?", "Because.", "Oh.", "Yes."]
    text = "".join(f"{n + 1}\n00:00:0{n},000 --> 00:00:0{n + 1},000\n{line}\n\n" for n, line in enumerate(lines))
    assert [cue.text for cue in read_subtitles(written(tmp_path, text))] == lines


def test_what_people_say_again_and_again_is_kept(tmp_path: Path) -> None:
    cues = [Cue(2.0 * n, 2.0 * n + 2, "No.") for n in range(10)]
    text = "".join(f"{n + 1}\n00:00:{2 * n:02},000 --> 00:00:{2 * n + 2:02},000\nNo.\n\n" for n in range(10))
    assert read_subtitles(written(tmp_path, text)) == cues
    assert read_subtitles(written(tmp_path, as_webvtt(cues), "clip.vtt")) == cues


def test_captions_that_roll_after_pauses_alone_tell_each_line_once(tmp_path: Path) -> None:
    """After a pause YouTube shows no line again but at the end, for an instant."""
    blocks = [
        f"00:00:{n:02}.000 --> 00:00:{n:02}.500\nline {n}\n\n00:00:{n:02}.500 --> 00:00:{n:02}.510\nline {n}\n\n"
        for n in range(5)
    ]
    assert [cue.text for cue in read_subtitles(written(tmp_path, "WEBVTT\n\n" + "".join(blocks), "clip.vtt"))] == [
        f"line {n}" for n in range(5)
    ]


@pytest.mark.parametrize(("start", "end"), [("00:00:0{}.000", "00:00:0{}.500"), ("00:00:01.000", "00:00:0{}.500")])
def test_a_refrain_after_pauses_and_a_chorus_at_once_do_not_roll(tmp_path: Path, start: str, end: str) -> None:
    text = "".join(f"{start.format(n)} --> {end.format(n)}\nRow, row\n\n" for n in range(1, 8))
    assert [cue.text for cue in read_subtitles(written(tmp_path, text))] == ["Row, row"] * 7


def test_overlapping_cues_are_all_kept(tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:09,000\nlong\n\n2\n00:00:02,000 --> 00:00:03,000\nshort\n"
    assert read_subtitles(written(tmp_path, text)) == [Cue(1.0, 9.0, "long"), Cue(2.0, 3.0, "short")]


def test_times_without_words_are_no_subtitles_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_subtitles(written(tmp_path, "1\n00:00:01,000 --> 00:00:09,000\n")) == []
    assert "holds times, but no words" in caplog.text


def test_events_without_a_line_of_formats_are_read(tmp_path: Path) -> None:
    short = "Dialogue: 0,0:00:01.00,0:00:02.00,Default,Olly,One, two, three, four, five, six.\n"
    full = "Dialogue: 0,0:00:03.00,0:00:04.00,Default,Olly,0,0,0,,One, two.\n"
    assert read_subtitles(written(tmp_path, short + full, "clip.ass")) == [
        Cue(1.0, 2.0, "Olly: One, two, three, four, five, six."),
        Cue(3.0, 4.0, "Olly: One, two."),
    ]


def test_a_rate_that_is_named_counts_frames_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, "{50}{100}words|more\n", "clip.sub")
    assert read_subtitles(path, fps=50.0) == [Cue(1.0, 2.0, "words more")]
    assert not caplog.text


def test_the_language_that_is_asked_for_comes_first(tmp_path: Path) -> None:
    cue = "1\n00:00:00,000 --> 00:00:01,000\nwords\n"
    video = write_video(
        tmp_path / "clip.mkv", range(25), subtitles=[("ger", 0.0, 1.0, "Wort"), ("spa", 0.0, 1.0, "si")]
    )
    assert find_subtitles(video, "es") == SubtitleSource(video, 1, "spa")
    assert find_subtitles(video, "fr") == SubtitleSource(video, 0, "ger")
    for name in ("clip.fr.srt", "clip.en.srt", "clip.pt-BR.srt", "clip.chi.srt"):
        written(tmp_path, cue, name)
    for asked, found in [("fre", "clip.fr.srt"), ("zh", "clip.chi.srt"), ("pt-br", "clip.pt-BR.srt")]:
        assert find_subtitles(video, asked).path.name == found
    assert find_subtitles(video, "pt").path.name == "clip.pt-BR.srt"
    assert find_subtitles(video, "de") == SubtitleSource(video, 0, "ger")
    assert find_subtitles(video).path.name == find_subtitles(video, "ja").path.name == "clip.en.srt"
    written(tmp_path, cue, "clip.srt")
    assert find_subtitles(video).path.name == find_subtitles(video, "ja").path.name == "clip.srt"
    assert find_subtitles(video, "en").path.name == "clip.en.srt"


@pytest.mark.parametrize("numerator", [24000, 30000])
@pytest.mark.parametrize("inside", [True, False])
def test_subtitles_are_within_a_frame_after_two_hours_of_a_fractional_rate(
    tmp_path: Path, numerator: int, inside: bool
) -> None:
    step = Fraction(1001, numerator)
    last = round(7200 / step)
    said = [(float(frame * step), f"frame {frame}") for frame in (last - 400, last - 200, last - 1)]
    ticks = [0, 100, *range(last - 410, last - 390), *range(last - 210, last - 190), *range(last - 5, last + 5)]
    path = tmp_path / "clip.mkv"
    if inside:
        write_video(path, ticks, step, subtitles=[("eng", start, start + 1, text) for start, text in said])
    else:
        write_video(path, ticks, step)
        stamps = [f"{int(start // 3600)}:{int(start // 60 % 60):02}:{start % 60:06.3f}" for start, _ in said]
        path.with_suffix(".srt").write_text(
            "".join(f"{stamp} --> 2:10:00.000\n{text}\n\n" for stamp, (_, text) in zip(stamps, said, strict=True))
        )
    source = find_subtitles(path)
    cues = read_subtitles(source.path, track=source.track)
    texts = align(cues, read_frames(path, np.array(ticks) * float(step)).times)
    assert {ticks[place]: text for place, text in enumerate(texts) if text} == {
        round(start / step): text for start, text in said
    }
    assert all(abs(cue.start - start) < float(step) / 2 for cue, (start, _) in zip(cues, said, strict=True))


spoken = (
    st.text(string.ascii_letters + " éя你", min_size=1, max_size=12)
    .map(lambda text: " ".join(text.split()))
    .filter(bool)
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9_000_000), st.integers(1, 900_000), spoken),
        min_size=1,
        max_size=8,
        unique_by=lambda said: said[2],
    )
)
@pytest.mark.parametrize("suffix", ["vtt", "ass", "ssa"])
def test_every_format_gives_every_cue_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, said: list[tuple[int, int, str]]
) -> None:
    """Times in hundredths of a second, which is all that SubStation Alpha can tell."""

    def stamp(ticks: int) -> str:
        return f"{ticks // 360_000}:{ticks // 6000 % 60:02}:{ticks // 100 % 60:02}.{ticks % 100:02}"

    if suffix == "vtt":
        text = "WEBVTT\n\n" + "".join(f"{stamp(a)}0 --> {stamp(a + b)}0\n<i>{words}</i>\n\n" for a, b, words in said)
    else:
        text = "[Events]\nFormat: Layer, Start, End, Style, Name, Text\n"
        text += "".join(f"Dialogue: 0,{stamp(a)},{stamp(a + b)},Default,,{{\\i1}}{words}\n" for a, b, words in said)
    path = written(tmp_path_factory.mktemp("said"), text, f"clip.{suffix}")
    expected = sorted(
        (Cue(a / 100, (a + b) / 100, words) for a, b, words in said), key=lambda cue: (cue.start, cue.end)
    )
    assert sorted(read_subtitles(path)) == sorted(expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(spoken, min_size=4, max_size=12, unique=True))
def test_captions_that_roll_tell_each_line_once(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    blocks = [
        f"00:00:{n:02}.000 --> 00:00:{n + 1:02}.000\n" + "\n".join(lines[max(0, n - 1) : n + 1])
        for n in range(len(lines))
    ]
    path = written(tmp_path_factory.mktemp("said"), "WEBVTT\n\n" + "\n\n".join(blocks) + "\n", "clip.vtt")
    assert [cue.text for cue in read_subtitles(path)] == lines


@pytest.mark.parametrize("suffix", ["srt", "vtt", "ass"])
def test_a_time_of_absurdly_many_hours_is_damage_like_any_other(tmp_path: Path, suffix: str) -> None:
    if suffix == "ass":
        text = "Dialogue: 0,{}:00:01.00,{}:00:02.00,A,,0,0,0,,lost\nDialogue: 0,0:00:03.00,0:00:04.00,A,,0,0,0,,kept\n"
    else:
        text = "{}:00:01.000 --> {}:00:02.000\nlost\n\n00:00:03.000 --> 00:00:04.000\nkept\n"
    for hours in ("9" * 400, "9" * 5000):
        cues = read_subtitles(written(tmp_path, text.replace("{}", hours), f"clip.{suffix}"))
        assert cues == [Cue(3.0, 4.0, "kept")]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.just(0) | st.integers(-(10**4), 10**7),
            st.integers(30, 10**6),
            st.just("No.")
            | st.text(string.ascii_letters + " <>&;-é你\n", min_size=1).filter(lambda text: text.strip()),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_saved_as_webvtt_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[int, int, str]]
) -> None:
    cues, end = list[Cue](), 0
    for pause, length, text in said:
        start = max(0, end + pause)
        end = start + length
        cues.append(Cue(start / 1000, end / 1000, text))
    path = written(tmp_path_factory.mktemp("saved"), as_webvtt(cues), "clip.vtt")
    expected = [Cue(start, end, " ".join(text.split())) for start, end, text in cues]
    assert sorted(read_subtitles(path)) == sorted(expected)


def test_line_ends_that_were_converted_twice_end_one_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.srt"
    text = "1\n00:00:01,000 --> 00:00:02,000\nhello\nthere\n\n2\n00:00:03,000 --> 00:00:04,000\nbye\n"
    path.write_bytes(text.replace("\n", "\r\r\n").encode())
    assert read_subtitles(path) == [Cue(1.0, 2.0, "hello there"), Cue(3.0, 4.0, "bye")]


def test_a_number_without_a_blank_line_before_it_is_no_word(tmp_path: Path) -> None:
    path = tmp_path / "dense.srt"
    blocks = ["{}\nthere are\n12\n2\n", "{}\n7\n\n3\n", "{}\nbye\n"]
    times = [f"00:00:0{second},000 --> 00:00:0{second + 1},000" for second in (1, 3, 5)]
    path.write_text("1\n" + "".join(block.format(time) for block, time in zip(blocks, times, strict=True)))
    assert [cue.text for cue in read_subtitles(path)] == ["there are 12", "7", "bye"]


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("gbk", "你好"),
        ("gbk", "谢谢你"),
        ("gbk", "我们走吧"),
        ("gbk", "好的，没问题"),
        ("gbk", "爸爸，我回来了"),
        ("big5", "謝謝"),
        ("big5", "好的，沒問題"),
        ("euc_kr", "안녕하세요 여러분"),
        ("euc_kr", "나는 학교에 갑니다"),
        ("shift_jis", "こんにちは、元気ですか"),
        ("cp1251", "Привет, как дела?"),
        ("cp1252", "Café Renée déjà vu"),
        ("cp1252", "naïve café"),
        ("cp1252", "¿Qué pasa, señor?"),
        ("cp1252", "Il était une fois – l’été"),
        ("latin-1", "Não, você não está à vontade"),
        ("cp1252", "Põe os milhões de dólares aí"),
        ("cp1252", "Õpetaja küsis, kus on kõik"),
        ("cp1252", "Bien sûr, désolé"),
        ("cp1251", "Уху, ну-ну"),
        ("cp850", "Där är en älg på vägen"),
        ("mac_roman", "C’est l’été à la forêt"),
        ("cp1250", "Nie wiem, gdzie jesteś. Chodź tu, proszę!"),
        ("iso8859-2", "Nie wiem, gdzie jesteś. Chodź tu, proszę!"),
        ("cp1250", "Dobrý den, jak se máte? Děkuji, dobře."),
        ("cp1250", "Miért nem szóltál előbb?"),
        ("iso8859-2", "A nő elment a gyűlésre."),
        ("cp1254", "Nerede olduğunu bilmiyorum, şimdi gel."),
        ("cp1257", "Kur tu esi? Es nezinu, ko tu dari šeit, jā."),
        ("cp1253", "Πού είσαι; Δεν ξέρω τι κάνεις."),
        ("cp1255", "איפה אתה? אני לא יודע מה אתה עושה."),
        ("cp1256", "أين أنت؟ لا أعرف ماذا تفعل."),
        ("cp874", "คุณอยู่ที่ไหน ฉันไม่รู้"),
        ("koi8-r", "Где ты? Я не знаю, что ты делаешь."),
        ("cp866", "Где ты? Я не знаю, что ты делаешь."),
        ("iso8859-5", "Где ты? Я не знаю, что ты делаешь."),
        ("koi8-u", "Де ти? Я не знаю, що ти робиш її."),
        ("euc_jp", "今日は公園を散歩します"),
        ("iso2022_jp", "今日は公園を散歩します"),
        ("cp949", "똠방각하 펲시콜라"),
        # all letters that western texts have too, but side by side
        *(("cp1251", "мама мыла"), ("koi8-r", "где ты"), ("cp1253", "τι κάνεις"), ("cp1255", "שלום"), ("cp874", "ไม่")),
        *((f"utf-16-{end}", words) for end in ("le", "be") for words in ("Hello", "Привет", "你好", "こんにちは")),
    ],
)
def test_a_few_words_are_enough_to_find_the_encoding(tmp_path: Path, encoding: str, words: str) -> None:
    path = tmp_path / "short.srt"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(end.join(["1", "00:00:01,000 --> 00:00:02,000", words, ""]).encode(encoding))
        assert read_subtitles(path) == [Cue(1.0, 2.0, words)]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("a\n\nb\n\n2", "a b"),
        ("a\n\nb\nc\n2", "a b c"),
        ("a\n\n\n\nb\n\n\n2", "a b"),
        ("a\n\nits name", "a"),
        ("a\n\n2\n00:00:02,000 -?> 00:00:02,500\nlost\n\n3", "a"),
        ("a\n\n7\nlost\n\n8", "a"),
    ],
)
def test_a_blank_line_does_not_end_a_subtitle_of_subrip(tmp_path: Path, body: str, words: str) -> None:
    path = written(tmp_path, f"1\n00:00:01,000 --> 00:00:02,000\n{body}\n00:00:03,000 --> 00:00:04,000\nend\n\nof it")
    assert read_subtitles(path) == [Cue(1.0, 2.0, words), Cue(3.0, 4.0, "end of it")]
    remark = f"WEBVTT\n\n00:01.000 --> 00:02.000\n{body}\n\nNOTE this\n\n00:03.000 --> 00:04.000\nend\n\nof it"
    assert [cue.text for cue in read_subtitles(written(tmp_path, remark, "clip.vtt"))] == ["a", "end"]


def test_line_breaks_part_words_and_control_characters_go(tmp_path: Path) -> None:
    text = "one<br>two<BR />three\n\x1b[31mred\x07\x00\x9b four\u200d\n"
    path = written(tmp_path, f"1\n00:00:01,000 --> 00:00:02,000\n{text}".encode())
    assert read_subtitles(path)[0].text == "one two three [31mred four\u200d"


@pytest.mark.parametrize(("encoding", "words"), [("gbk", "今天我们去公园散步"), ("big5", "今天我們去公園散步")])
def test_damaged_chinese_is_chinese_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str, words: str
) -> None:
    data = f"1\n00:00:01,000 --> 00:00:02,000\n{words}，{words}\n".encode(encoding)
    place = data.index("公".encode(encoding))
    path = written(tmp_path, data[: place + 1] + b"\xff" + data[place + 2 :])
    assert read_subtitles(path)[0].text.endswith(words) and "damaged characters" in caplog.text


def test_damaged_characters_do_not_change_the_encoding(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = "Где ты был вчера вечером?"
    data = bytearray(f"1\n00:00:01,000 --> 00:00:02,000\n{words} {words}\n".encode())
    data[-3] = data[-20] = 0xFF
    (cue,) = read_subtitles(written(tmp_path, bytes(data)))
    assert cue.text.startswith(words) and "damaged characters" in caplog.text


FIRST = "1\n00:00:01,000 --> 00:00:02,000\n"
EVENT = "Dialogue: 0,0:00:01.00,0:00:02.00,A,,0,0,0,,"


@pytest.mark.parametrize(
    "text",
    [
        "WEBVTT\n\n" + FIRST + "<v " * 50_000,
        "WEBVTT\n\n" + FIRST + "<v.a" * 50_000,
        "WEBVTT\n\n" + FIRST + "<v" + " " * 100_000 + "word",
        FIRST + "{\\" * 100_000,
        FIRST + "{y:" * 100_000,
        EVENT + "{" * 100_000,
        EVENT + "{\\p1" * 5_000,
        FIRST + "word\n" + "\r" * 400_000 + "word",
        FIRST + "ab\n" * 30_000 + "c\n\n" + FIRST.replace("02", "03").replace("01", "02") + "ab\n" * 30_000 + "d\n",
    ],
    ids=["voices", "classes", "spaces", "overrides", "controls", "blocks", "drawings", "returns", "rolling"],
)
def test_no_text_takes_longer_than_its_length_accounts_for(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    began = time.process_time()
    assert read_subtitles(path)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a{\\p1}m 0 0{\\p0}b", "ab"),
        ("{\\p1\\an8}m 0 0{\\an7}l 9 9", "after"),
        ("{\\pos(1,2)}a{\\p0}b{\\p2}m", "ab"),
        ("a {b", "a {b"),
        ("a {b} {\\c", "a {\\c"),
        ("{\\p1}m{\\p0}a{\\p1", "a{\\p1"),
    ],
)
def test_drawings_go_and_braces_that_do_not_close_stay(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, f"{EVENT}{text}\n{EVENT.replace('01', '03').replace('02', '04')}after\n", "clip.ass")
    assert read_subtitles(path)[0].text == words
