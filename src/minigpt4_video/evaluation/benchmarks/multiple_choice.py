"""Choices among options: Video-MME, MVBench and NExT-QA."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from minigpt4_video.data.formats.place import Place
from minigpt4_video.data.formats.rows import Row, Unusable, each, table, words
from minigpt4_video.data.sample import Flaw
from minigpt4_video.errors import DataError
from minigpt4_video.evaluation.items import LETTERS, Item, Items
from minigpt4_video.messages import Part

ASK = "Answer with the letter of the right option alone."


def choice(
    name: str,
    video: Part,
    question: str,
    options: Sequence[str],
    right: int,
    tags: Mapping[str, str],
    rate: float | None = None,
) -> Item:
    """An item that shows its options with letters. Raises Unusable where they are no choice."""
    if not 2 <= len(options) <= len(LETTERS):
        raise Unusable("has no two to ten options", len(options))
    if not 0 <= right < len(options):
        raise Unusable("has an answer that is none of its options", right)
    lines = [question, *(f"({place}) {option}" for place, option in zip(LETTERS, options, strict=False)), ASK]
    return Item(name, video, "\n".join(lines), LETTERS[right], tuple(options), tags, rate)


def index(row: Row, name: str) -> int:
    """A whole number, which tables may have as text. Raises Unusable."""
    number = row.number(name)
    if number is None or number != int(number):
        raise Unusable(f"{name} is not a whole number", row.values.get(name))
    return int(number)


def once(seen: set[str], name: str) -> str:
    """The same name where it is new. Raises Unusable."""
    if name in seen:
        raise Unusable("has an id that another row has", name)
    seen.add(name)
    return name


# ---- Video-MME

LABEL = re.compile(r"^\s*\(?[A-J][.):]\s*")


def video_mme(place: Place) -> Items:
    """Subtitles lie in a folder `subtitle` beside that of the videos, unless another is named."""
    if place.subtitles is None and (beside := Path(place.media).parent / "subtitle").is_dir():
        place.subtitles = beside
    seen: set[str] = set()

    def convert(row: Row) -> Iterator[Item]:
        options = [LABEL.sub("", words(one, "options")) for one in row.list("options")]
        answer = row.text("answer").strip().strip("().").upper()
        right = LETTERS.find(answer) if len(answer) == 1 else -1
        tags = {
            name: str(row.values.get(column) or "")
            for name, column in (("kind", "task_type"), ("duration", "duration"), ("domain", "domain"))
        }
        video = place.shown_video(place.video(row.name("videoID", "video_id")))
        name = once(seen, row.name("question_id"))
        yield choice(name, video, row.text("question"), options, right, tags)

    yield from each(table(place.path), convert)


# ---- MVBench

MVBENCH: dict[str, tuple[str, ...]] = {
    "action_sequence": ("star/Charades_v1_480",),
    "action_prediction": ("star/Charades_v1_480",),
    "action_antonym": ("ssv2_video",),
    "fine_grained_action": ("Moments_in_Time_Raw/videos",),
    "unexpected_action": ("FunQA_test/test",),
    "object_existence": ("clevrer/video_validation",),
    "object_interaction": ("star/Charades_v1_480",),
    "object_shuffle": ("perception/videos",),
    "moving_direction": ("clevrer/video_validation",),
    "action_localization": ("sta/sta_video",),
    "scene_transition": ("scene_qa/video",),
    "action_count": ("perception/videos",),
    "moving_count": ("clevrer/video_validation",),
    "moving_attribute": ("clevrer/video_validation",),
    "state_change": ("perception/videos",),
    "fine_grained_pose": ("nturgbd", "nturgbd_convert"),
    "character_order": ("perception/videos",),
    "egocentric_navigation": ("vlnqa",),
    "episodic_reasoning": ("tvqa/frames_fps3_hq",),
    "counterfactual_inference": ("clevrer/video_validation",),
}
"""Tasks by the names of their files, and the folders of their videos."""
PICTURES_A_SECOND = 3.0
"""Of the task that has folders of pictures."""


def mvbench(place: Place) -> Items:
    files = [place.path] if place.path.is_file() else [place.path / f"{task}.json" for task in MVBENCH]
    there = [file for file in files if file.is_file()]
    if not there:
        raise DataError(f"{place.path} holds no file of MVBench, such as action_sequence.json; name its folder json")
    for file in files:
        if file not in there:
            yield Flaw(file.name, "task is missing")
            continue
        yield from _mvbench_task(place, file)


def _mvbench_task(place: Place, file: Path) -> Items:
    task = re.sub(r"_\d{8}$", "", file.stem)  # one task was published anew, with a date in its name
    numbers = iter(range(10**9))

    def convert(row: Row) -> Iterator[Item]:
        number = next(numbers)
        options = [words(one, "candidates") for one in row.list("candidates")]
        answer = row.text("answer")
        if options.count(answer) != 1:
            raise Unusable("has an answer that is not one of its options", answer)
        name = row.name("video")
        rate = None
        if task == "episodic_reasoning":
            path, rate = place.folder(*(f"{folder}/{name}" for folder in MVBENCH[task]), name), PICTURES_A_SECOND
        else:
            path = place.first_video([f"{folder}/{name}" for folder in MVBENCH.get(task, ())] + [name])
        start, end = row.number("start"), row.number("end")
        if start is not None and end is not None and not 0 <= start < end:
            raise Unusable("has no span of time", f"{start} to {end}")
        video = place.shown_video(path, start, end)
        tags = {"kind": task.replace("_", " ")}
        yield choice(f"{task}#{number}", video, row.text("question"), options, options.index(answer), tags, rate)

    yield from each(table(file), convert)


# ---- NExT-QA

NEXTQA = {
    "CW": "causal: why",
    "CH": "causal: how",
    "TN": "temporal: before and after",
    "TP": "temporal: before and after",
    "TC": "temporal: meanwhile",
    "DC": "descriptive: number",
    "DL": "descriptive: place",
    "DO": "descriptive: other",
}


def next_qa(place: Place) -> Items:
    """Names of files are in `map_vid_vidorID.json`, where that lies beside the questions."""
    mapping = _mapping(place.path.with_name("map_vid_vidorID.json"))
    seen: set[str] = set()

    def convert(row: Row) -> Iterator[Item]:
        name = row.name("video")
        options = [_option(row, f"a{number}") for number in range(5)]
        kind = NEXTQA.get(str(row.values.get("type")), "other")
        path = place.first_video([mapping[name], name] if name in mapping else [name])
        found = once(seen, f"{name}#{row.name('qid')}")
        tags = {"kind": kind, "group": kind.partition(":")[0]}
        yield choice(found, place.shown_video(path), row.text("question"), options, index(row, "answer"), tags)

    yield from each(table(place.path), convert)


def _option(row: Row, name: str) -> str:
    value = row.value(name)
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else row.text(name)


def _mapping(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from error
    return {str(key): value for key, value in read.items() if isinstance(value, str)} if isinstance(read, dict) else {}
