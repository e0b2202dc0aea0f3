"""Short answers to open questions: MSVD-QA, MSRVTT-QA, TGIF-QA's FrameQA and ActivityNet-QA.

Each is read in its authors' layout, in that of Video-ChatGPT's zero-shot sets (questions and answers in two files), and
as the original's evaluation had it (question, answer and name of the video in one row).
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from minigpt4_video.data.formats.place import Place
from minigpt4_video.data.formats.rows import Row, Unusable, csv_rows, each, table
from minigpt4_video.data.sample import Flaw
from minigpt4_video.errors import DataError
from minigpt4_video.evaluation.items import Item, Items

KINDS = ("what", "who", "how", "when", "where", "why", "which")


def msvd(place: Place) -> Items:
    names = _youtube_names(place.path)

    def video_name(row: Row) -> list[str]:
        name = row.name("video_id", "video_name", "video")
        numbered = name if not name.isdecimal() else f"vid{name}"
        return [one for one in (names.get(numbered), numbered, name) if one]

    yield from _asked(place, video_name, first_word)


def msrvtt(place: Place) -> Items:
    def video_name(row: Row) -> list[str]:
        name = row.name("video_id", "video_name", "video")
        return [f"video{name}" if name.isdecimal() else name]

    yield from _asked(place, video_name, first_word)


TGIF_KINDS = {"0": "object", "1": "number", "2": "colour", "3": "location"}


def tgif_frameqa(place: Place) -> Items:
    """FrameQA is published as tables whose cells are parted by tabs, whatever their suffix says."""
    yield from _asked(
        place,
        lambda row: [row.name("gif_name", "video_name")],
        lambda row: TGIF_KINDS.get(str(row.values.get("type")), "other"),
    )


ACTIVITYNET_KINDS = {
    "0": "motion",
    "1": "spatial relation",
    "2": "temporal relation",
    "3": "yes or no",
    "4": "colour",
    "5": "object",
    "6": "location",
    "7": "number",
    "8": "other",
}


def activitynet(place: Place) -> Items:
    def video_name(row: Row) -> list[str]:
        name = row.name("video_name", "video_id")
        return [f"v_{name.removeprefix('v_')}", name]

    yield from _asked(place, video_name, lambda row: ACTIVITYNET_KINDS.get(str(row.values.get("type")), "other"))


def first_word(row: Row) -> str:
    word = row.text("question", "q").split()[0].lower()
    return word if word in KINDS else "other"


def _asked(place: Place, names: Callable[[Row], list[str]], kind: Callable[[Row], str]) -> Items:
    seen: dict[str, int] = {}

    def convert(row: Row) -> Iterator[Item]:
        question, answer = row.text("question", "q", "Q"), _answer(row)
        path = place.first_video(names(row))
        given = row.values.get("question_id", row.values.get("id", row.values.get("key")))
        name = f"{Path(path).stem}#{given if given not in (None, '') else question}"
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            raise Unusable("has an id that another row has", name)
        yield Item(name, place.shown_video(path), question, answer, tags={"kind": kind(row)})

    yield from each(rows(place.path), convert)


def _answer(row: Row) -> str:
    value = row.value("answer", "a", "A")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else row.text("answer", "a", "A")


def rows(path: Path) -> Iterator[Row | Flaw]:
    """The rows of a file, those of a file of questions with the answers that lie beside it."""
    if path.suffix.lower() in (".csv", ".tsv") and _has_tabs(path):
        yield from csv_rows(path, "\t")
        return
    answers_file = path.with_name(path.name.replace("_q.", "_a."))
    if answers_file == path or not answers_file.is_file():
        yield from table(path)
        return
    answers: dict[str, Mapping[str, Any]] = {}
    for row in table(answers_file):
        if isinstance(row, Flaw):
            yield row
        elif (name := row.values.get("question_id")) is not None:
            answers[str(name)] = row.values
    for row in table(path):
        beside = None if isinstance(row, Flaw) else answers.get(str(row.values.get("question_id")))
        if isinstance(row, Flaw):
            yield row
        elif beside is None:
            yield Flaw(row.where, f"has no answer in {answers_file.name}", str(row.values.get("question_id"))[:60])
        else:
            yield row._replace(values={**beside, **row.values})


def _has_tabs(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\t" in file.readline(65536)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _youtube_names(path: Path) -> dict[str, str]:
    """MSVD's numbers to the names its files have, where the mapping lies beside the questions."""
    mapping = path.with_name("youtube_mapping.txt")
    if not mapping.is_file():
        return {}
    lines = (line.split() for line in mapping.read_text(encoding="utf-8", errors="replace").splitlines())
    return {parts[1]: parts[0] for parts in lines if len(parts) == 2}
