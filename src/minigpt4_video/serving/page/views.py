"""What the page shows of a video: the frames that the model sees, their texts, the plan, and the report."""

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any, NamedTuple

from minigpt4_video.inference import Answer
from minigpt4_video.inference.answer import Evidence, Timings
from minigpt4_video.inference.footage import Footage
from minigpt4_video.inference.report import FRAME_WIDTH, Shown, Turn, data_url, page
from minigpt4_video.long_video.answering import LongVideo
from minigpt4_video.media import Clip, read_clip_guarded
from minigpt4_video.messages import Message
from minigpt4_video.planning import UNIT, Plan
from minigpt4_video.serving.service import Service
from minigpt4_video.serving.watching import Wanted

DECODERS = 2
"""Child processes that make pictures for people at the same time; the model's frames are read by others."""


class Said(NamedTuple):
    """A question as it was answered."""

    question: str
    answer: str
    confidence: float
    """Mean log-probability of the answer's tokens."""
    seconds: float


class Seen(NamedTuple):
    """What the model sees of a video with a conversation."""

    footage: Footage
    film: LongVideo | None = None
    """The video where it is long and the footage is of the clips that the conversation is about."""
    evidence: tuple[Evidence, ...] = ()
    """Those clips."""
    indexed: float | None = None
    """Of a long video the share that has been indexed."""


class Views:
    """Looks at videos as a service's model does."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._processor = copy.deepcopy(service.chat.processor)  # a tokenizer is not to be shared between threads
        self._processor.answer_reserve = min(self._processor.answer_reserve, service.limits.answer_tokens)
        self._lock = Lock()
        self._decoders = BoundedSemaphore(DECODERS)

    @property
    def most_frames(self) -> int:
        """That a question may ask for; a long question or subtitles leave room for fewer."""
        processor = self._processor
        room = processor.window - processor.answer_reserve
        most: int = min(self._service.limits.frames, room // (processor.tokens_per_frame + 1))
        return max(1, most)

    def footage(self, footage: Footage, messages: Sequence[Message], pictures: Clip | None) -> dict[str, Any]:
        """Frames and plan for a conversation, for `json.dumps`. Raises PlanError."""
        plan = self._plan(footage, messages)
        kept = dict(zip(plan.kept_frames, plan.kept_subtitles, strict=True))
        frames: list[dict[str, Any]] = [
            {"time": float(time), "text": kept.get(index, text), "seen": index in kept}
            for index, (time, text) in enumerate(zip(footage.clip.times, footage.texts, strict=True))
        ]
        if pictures is not None:
            for frame, picture in zip(frames, pictures.frames, strict=True):
                frame["picture"] = data_url(picture)
        info = footage.info
        return {
            "duration": info.duration,
            "width": info.width,
            "height": info.height,
            "available": info.frames,
            "subtitles": bool(footage.cues),
            "frames": frames,
            "plan": {name: value for name, value in asdict(plan).items() if isinstance(value, int)},
            "left_out": _left_out(footage, plan),
        }

    def pictures(self, path: Path, seen: Seen, wanted: Wanted) -> Clip:
        """The same frames for people: in their own proportions, read in a limited child process. Raises MediaError."""
        info, limits = seen.footage.info, self._service.limits
        scale = FRAME_WIDTH / max(info.width, info.height)
        own_size = (max(1, round(info.height * scale)), max(1, round(info.width * scale)))
        count = wanted.frames or min(self._processor.frames, limits.frames)
        with self._decoders:
            if seen.film is not None:
                film = copy.copy(seen.film)
                film.read = lambda path, frames, *, start, end, size: read_clip_guarded(
                    path, frames, size=own_size, start=start, end=end, limits=limits.decoding
                )
                return film.show(seen.evidence).footage.clip
            return read_clip_guarded(path, count, size=own_size, limits=limits.decoding)

    def report(self, seen: Seen, messages: Sequence[Message], pictures: Clip, title: str, said: Sequence[Said]) -> str:
        """The report of a conversation as HTML; of a long video with the parts that the last answer rests on. Raises
        PlanError."""
        footage = seen.footage
        plan = self._plan(footage, messages)
        turns = []
        for one in said:
            timings = Timings(frames=0, first_word=0, total=one.seconds)
            evidence = seen.evidence if one is said[-1] else ()
            turns.append(Turn(one.question, Answer(one.answer, one.confidence, plan, timings, evidence)))
        shown = Shown(title, footage.facts(), pictures.frames, list(footage.clip.times), footage.texts)
        return page(shown, turns, self._service.chat.name)

    def _plan(self, footage: Footage, messages: Sequence[Message]) -> Plan:
        if not messages:
            with self._lock:
                return footage.plan(self._processor)
        first = footage.conversation(messages[0]["content"])
        with self._lock:
            plan: Plan = footage.prepare(self._processor, [*first, *messages[1:]]).plans[0]
        return plan


def _left_out(footage: Footage, plan: Plan) -> dict[str, int]:
    """What a plan had no room for, in numbers, which any language has."""
    words, kept = (sum(len(UNIT.findall(text)) for text in texts) for texts in (footage.texts, plan.kept_subtitles))
    frames = len(footage.texts)
    return {"frames": frames - plan.frames, "all_frames": frames, "words": words - kept, "all_words": words}
