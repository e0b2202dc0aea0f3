"""What was heard once is not heard again: transcripts by the content of the file and by who heard it."""

import json
import logging
import os
from hashlib import file_digest, sha256
from math import isfinite
from pathlib import Path

from minigpt4_video.errors import UserError
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.media import Cue, Recogniser

logger = logging.getLogger(__name__)

FORM = 1
"""Raised when sound is read or cut differently, so that older transcripts are not taken."""


def transcripts_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "minigpt4-video" / "transcripts"


def transcript_file(video: Path, recogniser: Recogniser, language: str | None) -> Path:
    """Where the transcript is kept; the name holds everything that determines it."""
    with video.open("rb") as opened:
        content = file_digest(opened, "sha256").hexdigest()
    everything = json.dumps([FORM, content, recogniser.key, language])
    return transcripts_folder() / f"{sha256(everything.encode()).hexdigest()}.json"


def read_transcript(file: Path) -> list[Cue] | None:
    """The words; None where there is no such transcript, or where it is damaged."""
    try:
        words = [Cue(float(start), float(end), str(text)) for start, end, text in json.loads(file.read_bytes())]
    except (OSError, ValueError, TypeError):
        return None
    return words if all(0 <= word.start <= word.end and isfinite(word.end) for word in words) else None


def keep_transcript(file: Path, words: list[Cue]) -> None:
    """Write the words, whole or not at all. Where that fails, a warning: they are there for this time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(words, ensure_ascii=False).encode(errors="replace"))
    except (OSError, UserError) as error:
        logger.warning("the transcript is not kept: %s", error)
