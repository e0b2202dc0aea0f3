"""Films hold what is planted in them where it is said to be, and nowhere else."""

import itertools
import json

import pytest

from minigpt4_video.data.world import language as words
from minigpt4_video.data.world.films import SCOPES, cues, make_film, write_films
from minigpt4_video.errors import UserError
from minigpt4_video.media import probe, read_subtitles


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_asked_for_is_where_it_was_planted_and_nowhere_else(language):
    film = make_film(3, 10, language)
    assert {one.scope for one in film.questions} == set(SCOPES)
    assert {one.language for one in film.questions} == {"en", "zh"}
    assert 600 <= film.seconds < 606 and len(film.parts) > 100
    for one in film.questions:
        assert all(start <= moment <= end for moment, (start, end) in zip(one.moments, one.spans, strict=True))
        spans = set(one.spans)
        for part in film.parts:
            looks = {words.describe(thing, one.language) for thing in part.scene.things}
            if one.needs == "picture":
                assert any(look in one.text for look in looks) == ((part.start, part.end) in spans)
        if one.scope == "order":
            liked = [n for n in range(10) if words.LIKED[one.language][n].lower() in one.text.lower()]
            said = [p for p in film.parts for line in p.scene.lines if line.likes in liked]
            assert [(part.start, part.end) for part in said] == list(one.spans)
            assert words.NAMES[one.language][said[0].scene.lines[0].speaker] == one.answer
        if one.scope == "count":
            assert one.answer == str(len(one.spans)) and len(one.spans) > 1


def test_the_same_number_is_the_same_film_and_neighbours_differ_in_light():
    film = make_film(5, 4, "en")
    assert film == make_film(5, 4, "en") != make_film(6, 4, "en")
    shades = [part.scene.background[0] for part in film.parts]
    assert all(abs(a - b) >= 18 for a, b in itertools.pairwise(shades))


def test_a_film_on_disk_lasts_and_says_what_it_should(tmp_path):
    told = []
    videos = write_films(tmp_path, minutes=4, count=1, size=32, progress=lambda done, whole: told.append((done, whole)))
    film = make_film(0, 4, "en")
    assert abs(probe(videos[0]).duration - film.seconds) < 0.3 and told[-1] == (film.seconds, film.seconds)
    assert [cue.text for cue in read_subtitles(videos[0].with_suffix(".srt"))] == [cue.text for cue in cues(film)]
    (row,) = map(json.loads, (tmp_path / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    assert row["video"] == videos[0].name and len(row["questions"]) == len(film.questions)


def test_a_film_too_short_for_what_is_planted_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least 4"):
        write_films(tmp_path, minutes=1)
