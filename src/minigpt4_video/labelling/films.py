"""Questions about clips that are too long for the model's frames, answered from the parts they are about."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from minigpt4_video.inference.answer import Answer
from minigpt4_video.inference.batching import Engine, Question
from minigpt4_video.inference.chat import VideoChat
from minigpt4_video.inference.footage import Said
from minigpt4_video.inference.store import Store
from minigpt4_video.labelling.files import at_hand
from minigpt4_video.labelling.manifest import Work
from minigpt4_video.labelling.reading import Seen
from minigpt4_video.long_video.answering import LongVideo
from minigpt4_video.long_video.choosing import Long, index_place, takes_clips
from minigpt4_video.long_video.index import Settings, index_key, make_index
from minigpt4_video.media import Clip, Limits, Nursery, read_video_guarded, stream_frames_guarded


class Films:
    """Answers about long clips, whose files are read in limited children like all others."""

    def __init__(
        self, chat: VideoChat, engine: Engine, long: Long, frames: int | None, store: Store | None, limits: Limits
    ) -> None:
        """`frames` is how many the model is shown, `store` where indexes are kept."""
        self._chat = copy(chat)
        self._chat.store = store
        self._engine = engine
        self._long = long
        self._frames = frames
        self._limits = limits

    def takes(self, work: Work, seen: Seen) -> bool:
        """Whether a clip is long."""
        info, source = seen.footage.info, work.source
        return takes_clips(self._chat, info, self._long, self._frames, source.start, source.end)

    def answers(self, work: Work, seen: Seen, questions: Sequence[Question]) -> list[Answer]:
        """Raises UserError."""
        with self._opened(work, seen) as video:
            return video.answer_all(questions)

    @contextmanager
    def _opened(self, work: Work, seen: Seen) -> Iterator[LongVideo]:
        footage = seen.footage
        said = Said(footage.cues, footage.said_in, footage.unsaid)
        nursery = Nursery()
        try:
            with at_hand(work.source) as (source, path):
                digest = self._digest(path)
                place = index_place(self._chat.store, index_key(self._chat, digest, said, Settings()))
                stream = partial(stream_frames_guarded, limits=self._limits, nursery=nursery)
                index = make_index(
                    self._chat, path, footage.info, said, place, content=digest, engine=self._engine, stream=stream
                )
                yield LongVideo(
                    self._chat, path, footage.info, index, frames=self._frames, start=source.start, end=source.end,
                    engine=self._engine, read=partial(self._read, nursery),
                )  # fmt: skip
        finally:
            nursery.close()

    def _digest(self, path: Path) -> str:
        from minigpt4_video.inference.store import file_digest

        return self._chat.store.digest(path) if self._chat.store else file_digest(path)

    def _read(self, nursery: Nursery, path: Path, frames: int, **options: Any) -> Clip:
        watched = read_video_guarded(path, frames, **options, subtitles=False, limits=self._limits, nursery=nursery)
        return watched.clip
