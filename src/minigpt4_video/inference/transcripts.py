"""What was heard once is not heard again: words in the store, by the content of the file and by who heard them."""

import inspect
import json
import logging
from pathlib import Path

import av
import numpy as np
import torch

from minigpt4_video.inference.store import Store, file_digest, key
from minigpt4_video.media import Cue, Recogniser, sound, transcribe, transcription

logger = logging.getLogger(__name__)


def stored_words(store: Store | None, video: Path, recogniser: Recogniser, language: str | None = None) -> list[Cue]:
    """What `transcribe(video, recogniser, language)` gives, from the store where it is there."""
    before = video.stat()
    name = "" if store is None else key("words", store.digest(video), recogniser.key, language, *_reading())
    if store is not None and (kept := store.get(name)) is not None:
        told = json.loads(kept["words"].numpy().tobytes())
        return [Cue(start, end, text) for start, end, text in told]
    logger.info("listening to %s (%s); this takes a while", video.name, recogniser.name)
    words = transcribe(video, recogniser, language)
    after = video.stat()
    if store is not None and (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
        told = np.frombuffer(json.dumps(words).encode(), np.uint8).copy()
        store.put(name, {"words": torch.from_numpy(told)})
    return words


def _reading() -> list[str]:
    """What brings sound to the recogniser and its words to cues: the code, and the decoder."""
    code = [Path(inspect.getfile(module)) for module in (sound, transcription)]
    return [*map(file_digest, code), av.__version__]
