"""The world's own benchmark: questions about rendered files, scored by exact match, whole and with parts withheld.

Withholding shows what an answer rests on: without frames a question about the picture can only be guessed, without
subtitles one about speech, and without both all that is left is the prior.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from minigpt4_video.data.world.files import QUESTIONS
from minigpt4_video.errors import UserError
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.media import read_clip, read_subtitles

Shown = Literal["all", "no subtitles", "no frames", "nothing"]
SHOWN: tuple[Shown, ...] = get_args(Shown)


@dataclass(frozen=True)
class Item:
    video: str
    kind: str
    needs: str
    language: str
    question: str
    reference: str


@dataclass(frozen=True)
class Answered:
    item: Item
    shown: Shown
    answer: str

    @property
    def right(self) -> bool:
        return normalised(self.answer) == normalised(self.item.reference)


def normalised(text: str) -> str:
    """For exact match: lower case, no punctuation at the end, single spaces."""
    return " ".join(text.lower().strip().rstrip(".!。！").split())


def choose(folder: Path, each: int) -> list[Item]:
    """At most `each` questions a video of a rendered folder, rare kinds first so that all kinds come to be asked
    alike."""
    listing = folder / QUESTIONS
    if not listing.is_file():
        raise UserError(f"{folder} has no {QUESTIONS}; render a world into it first")
    asked: Counter[str] = Counter()
    items: list[Item] = []
    for line in listing.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        offered = list(row["questions"])
        for _ in range(min(each, len(offered))):
            question = min(offered, key=lambda one: asked[f"{one['language']}/{one['kind']}"])
            offered.remove(question)
            asked[f"{question['language']}/{question['kind']}"] += 1
            items.append(
                Item(
                    row["video"],
                    question["kind"],
                    question["needs"],
                    question["language"],
                    question["text"],
                    question["answer"],
                )
            )
    return items


def answers(
    chat: VideoChat,
    folder: Path,
    items: Sequence[Item],
    shown: Shown,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Answered]:
    """The model's greedy answers, all questions of a video behind one prefix."""
    by_video: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_video[item.video].append(item)
    done = 0
    for name, wanted in by_video.items():
        ask = _asker(chat, folder / name, shown)
        for item in wanted:
            yield Answered(item, shown, ask(item.question))
            done += 1
            if progress is not None:
                progress(done)


def _asker(chat: VideoChat, path: Path, shown: Shown) -> Callable[[str], str]:
    if shown in ("all", "no subtitles"):
        video = chat.open(path, subtitles="auto" if shown == "all" else "off")
        return lambda question: video.ask(question).text
    part: list[dict[str, Any]] = []
    if shown == "no frames":
        clip = read_clip(path, chat.processor.frames)
        beside = path.with_suffix(".srt")
        cues = [cue._asdict() for cue in read_subtitles(beside)] if beside.exists() else "off"
        grey = np.full_like(clip.frames, 40)
        part = [{"type": "video", "frames": grey, "times": clip.times.tolist(), "subtitles": cues}]

    def ask(question: str) -> str:
        return chat.answer([{"role": "user", "content": [*part, {"type": "text", "text": question}]}]).text

    return ask


def table(results: Sequence[Answered]) -> dict[str, Any]:
    """Accuracy overall (the mean over kinds), by kind, by what is needed, and by language (again means over kinds)."""
    by_kind = _accuracy(results, lambda one: one.item.kind)
    languages = sorted({one.item.language for one in results})
    return {
        "questions": len(results),
        "videos": len({one.item.video for one in results}),
        "macro": _mean(by_kind),
        "by_kind": by_kind,
        "by_need": _accuracy(results, lambda one: one.item.needs),
        "by_language": {
            language: _mean(
                _accuracy([one for one in results if one.item.language == language], lambda one: one.item.kind)
            )
            for language in languages
        },
    }


def prior(items: Sequence[Item]) -> dict[str, float]:
    """By kind, how often the commonest answer of its language would be right."""
    counted: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for item in items:
        counted[item.kind][item.language][item.reference] += 1
    return {
        kind: round(sum(max(c.values()) for c in spoken.values()) / sum(c.total() for c in spoken.values()), 4)
        for kind, spoken in sorted(counted.items())
    }


def _accuracy(results: Sequence[Answered], key: Callable[[Answered], str]) -> dict[str, float]:
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for one in results:
        total[key(one)] += 1
        right[key(one)] += one.right
    return {name: round(right[name] / total[name], 4) for name in sorted(total)}


def _mean(values: dict[str, float]) -> float:
    return round(sum(values.values()) / len(values), 4) if values else 0.0
