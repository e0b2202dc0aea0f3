"""What is said becomes cues: at the right times, and in lines that can be read."""

import importlib.util
import io
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4_video.media import Cue, align, lines, read_frames, transcribe
from minigpt4_video.media.transcription import LONGEST_LINE, PAUSE, PocketSphinx
from numbered import write_video
from speaking import RATE, conversation, tone, write_talking


class Beeps:
    """Hears "beep" for every stretch of sound, and tells how often it was asked."""

    name = key = "beeps"

    def __init__(self, *more: Cue) -> None:
        self.more = more
        self.asked = 0

    def words(self, samples: np.ndarray) -> Iterable[Cue]:
        self.asked += 1
        loud = np.flatnonzero(np.abs(samples) > 0.1) / RATE
        yield Cue(float(loud[0]), float(loud[-1]), " beep")
        yield from self.more


@pytest.fixture(scope="module")
def sphinx() -> PocketSphinx:
    if importlib.util.find_spec("pocketsphinx") is None:
        pytest.skip("pocketsphinx is not installed (pip install pocketsphinx)")
    return PocketSphinx()


def test_words_have_the_times_of_the_whole_file(tmp_path: Path) -> None:
    path = write_talking(
        tmp_path / "clip.mkv", [(1.0, tone(1)), (5.0, tone(1))], seconds=8, codec="pcm_s16le", begin=0.5
    )
    words = transcribe(path, Beeps())
    assert [word.text for word in words] == [" beep", " beep"]
    assert [word.start for word in words] == pytest.approx([0.5, 4.5], abs=0.01)
    assert [word.end for word in words] == pytest.approx([1.5, 5.5], abs=0.01)


def test_words_stay_within_their_sound_and_empty_ones_go(tmp_path: Path) -> None:
    path = write_talking(tmp_path / "clip.mkv", [(0.0, tone(1))], seconds=2, codec="pcm_s16le", begin=0.5)
    wild = Beeps(Cue(0.9, 99.0, " far"), Cue(-3.0, -2.0, " early"), Cue(0.8, 0.7, " back"), Cue(0.1, 0.2, "  "))
    words = transcribe(path, wild)
    assert [word.text for word in words] == [" beep", " early", " back", " far"]
    assert all(0 <= word.start <= word.end <= 0.5 + 1e-6 for word in words)


def test_silence_and_files_without_sound_have_no_words_and_no_recogniser_is_asked(tmp_path: Path) -> None:
    silent = write_talking(tmp_path / "silent.mp4", [(0.0, np.zeros(3 * RATE, np.float32))], seconds=3)
    mute = write_video(tmp_path / "mute.mp4", range(5))
    beeps = Beeps()
    assert transcribe(silent, beeps) == [] == transcribe(mute, beeps)
    assert beeps.asked == 0


spoken = st.lists(
    st.tuples(st.floats(0, 2), st.floats(0.01, 3), st.sampled_from([" yes", " no.", " why?", "是", "。", " (so.)"])),
    max_size=30,
)


@given(spoken)
def test_lines_hold_every_word_once_in_order_and_stay_short(said: list[tuple[float, float, str]]) -> None:
    words, end = [], 0.0
    for pause, length, text in said:
        words.append(Cue(end + pause, end + pause + length, text))
        end += pause + length
    made = lines(words)
    assert " ".join("".join(word.text for word in words).split()).replace(" ", "") == "".join(
        line.text.replace(" ", "") for line in made
    )
    assert all(line.end - line.start <= LONGEST_LINE for line in made)
    assert [line.start for line in made] == sorted(line.start for line in made)
    assert {line.start for line in made} <= {word.start for word in words}
    for line in made:
        within = [word for word in words if line.start <= word.start and word.end <= line.end]
        assert all(b.start - a.end < PAUSE for a, b in pairwise(within))


def test_a_line_ends_with_a_sentence_and_at_a_pause() -> None:
    words = [Cue(0, 0.5, " Hello"), Cue(0.5, 1, " there."), Cue(1, 1.5, " I"), Cue(1.5, 2, " am"), Cue(4, 5, " here")]
    assert lines(words) == [Cue(0, 1, "Hello there."), Cue(1, 2, "I am"), Cue(4, 5, "here")]
    assert lines([Cue(0, 1, "你"), Cue(1, 2, "好。"), Cue(2, 3, "再见")]) == [Cue(0, 2, "你好。"), Cue(2, 3, "再见")]


class StandInSphinx(ModuleType):
    """What is used of pocketsphinx: two voices in each piece, and in each utterance three words."""

    def __init__(self) -> None:
        super().__init__("pocketsphinx")
        self.uttered: list[int] = []

    def Segmenter(self, sample_rate: int) -> SimpleNamespace:
        def segment(sound: io.BytesIO) -> Iterator[SimpleNamespace]:
            samples = np.frombuffer(sound.read(), "<i2")
            assert sample_rate == RATE and abs(int(samples.max()) - 16383) < 40
            for start, length in ((0.5, 1.0), (2.0, 45.0)):
                yield SimpleNamespace(start_time=start, pcm=bytes(round(length * RATE) * 2))

        return SimpleNamespace(segment=segment)

    def Decoder(self, **_: object) -> SimpleNamespace:
        words = [("<s>", 0, 9), ("one", 10, 29), ("<sil>", 30, 39), ("[NOISE]", 40, 49), ("two(2)", 50, 59)]
        return SimpleNamespace(
            config={"frate": 100},
            start_utt=lambda: None,
            end_utt=lambda: None,
            process_raw=lambda pcm, full_utt: self.uttered.append(len(pcm)),
            seg=lambda: [SimpleNamespace(word=word, start_frame=a, end_frame=b) for word, a, b in words],
        )


def test_what_sphinx_tells_becomes_words_with_the_times_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = StandInSphinx()
    monkeypatch.setitem(sys.modules, "pocketsphinx", stand_in)
    path = write_talking(tmp_path / "clip.mkv", [(1.0, tone(60))], seconds=62, codec="pcm_s16le", begin=0.25, rate=1)
    words = transcribe(path, PocketSphinx())
    starts = [0.75 + voice for voice in (0.5, 2.0, 32.0)]  # the longer one in utterances of at most half a minute
    assert stand_in.uttered == [seconds * RATE * 2 for seconds in (1, 30, 15)]
    assert [word.text for word in words] == [" one", " two"] * 3
    assert [word.start for word in words] == pytest.approx([start + at for start in starts for at in (0.1, 0.5)])
    assert [word.end for word in words] == pytest.approx([start + at for start in starts for at in (0.3, 0.6)])


def word_errors(heard: list[str], said: list[str]) -> int:
    """Words to put in, take out or replace."""
    row = list(range(len(said) + 1))
    for index, word in enumerate(heard, 1):
        row, above = [index], row
        for place, other in enumerate(said):
            row.append(min(row[-1] + 1, above[place + 1] + 1, above[place] + (word != other)))
    return row[-1]


def test_speech_is_recognised_and_each_word_lands_at_the_frame_in_which_it_is_said(
    tmp_path: Path, sphinx: PocketSphinx
) -> None:
    said = conversation()
    seconds = len(said.samples) / RATE
    path = write_talking(tmp_path / "talk.mp4", [(0.0, said.samples)], seconds=seconds, rate=8)
    words = transcribe(path, sphinx)

    heard = [word.text.strip() for word in words]
    spoken = [word for word, _ in said.words]
    assert word_errors(heard, spoken) / len(spoken) <= 0.10

    times = read_frames(path, np.arange(0, seconds, 1 / 8)).times
    frames = {}  # of each word that was recognised once and said once
    for index, text in enumerate(align([Cue(a, b, text.strip()) for a, b, text in words], times)):
        for word in text.split():
            frames.setdefault(word, []).append(index)
    once = [(word, start) for word, start in said.words if spoken.count(word) == 1 and len(frames.get(word, ())) == 1]
    assert len(once) >= len(set(spoken)) * 0.7
    off = [frames[word][0] - int(np.searchsorted(times, start)) for word, start in once]
    assert max(map(abs, off)) <= 1  # a frame lasts an eighth of a second
    assert np.mean(np.array(off) == 0) >= 0.6


def test_the_times_hold_after_a_gap_and_with_a_late_picture(tmp_path: Path, sphinx: PocketSphinx) -> None:
    said = conversation(["We will meet at the station tomorrow morning."], pause=0.0)
    path = write_talking(
        tmp_path / "talk.mkv",
        [(1.0, said.samples), (20.0, said.samples)],
        seconds=26,
        codec="pcm_s16le",
        begin=0.75,
    )
    tomorrow = [word.start for word in transcribe(path, sphinx) if word.text == " tomorrow"]
    start = dict(said.words)["tomorrow"]
    assert tomorrow == pytest.approx([start + 0.25, start + 19.25], abs=0.1)


def test_noise_is_not_taken_for_words(tmp_path: Path, sphinx: PocketSphinx) -> None:
    noise = np.random.default_rng(0).normal(0, 0.002, 5 * RATE).astype(np.float32)
    path = write_talking(tmp_path / "noise.mkv", [(0.0, noise)], seconds=5, codec="pcm_s16le")
    assert transcribe(path, sphinx) == []
