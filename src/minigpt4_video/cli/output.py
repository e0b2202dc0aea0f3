"""Answers go to stdout; whatever else there is to say goes to stderr."""

import json
import logging
import os
import sys
import time
import unicodedata
import warnings
from typing import Any

DEBUG = "MINIGPT4_VIDEO_DEBUG"


def note(text: str) -> None:
    """One line for the person who watches."""
    print(visible(" ".join(text.split())), file=sys.stderr, flush=True)


def say(text: str, end: str = "\n") -> None:
    print(visible(text), end=end, flush=True)


def visible(text: str) -> str:
    """Without the characters a terminal obeys: subtitles can bring them in, and a model can be led to repeat them."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf"))


def say_json(value: Any) -> None:
    say(json.dumps(value, ensure_ascii=False, indent=2, default=str))


class Progress:
    """How far long work on a film is: one line on a terminal, rewritten; elsewhere one each half minute."""

    def __init__(self, done: str) -> None:
        self.done = done
        self._told = time.monotonic()
        self._is_open = False

    def told(self, seconds: float, whole: float) -> None:
        """Called with the seconds of film that are done, and of all."""
        is_live = sys.stderr.isatty()
        if time.monotonic() - self._told < (0.5 if is_live else 30.0):
            return
        self._told, self._is_open = time.monotonic(), is_live
        line = f"{seconds / 60:.0f} of {whole / 60:.0f} minutes {self.done}"
        print(f"\r{line:40}" if is_live else line, end="" if is_live else "\n", file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *fault: object) -> None:
        if self._is_open:
            print(file=sys.stderr, flush=True)


class _Notes(logging.Handler):
    """Warnings of this package as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"note: {record.getMessage()}")


def quiet() -> None:
    """Keep the libraries' progress bars and advice away from stderr; call before they are imported.

    With the debug variable set, they may speak.
    """
    ours = logging.getLogger("minigpt4_video")
    if not ours.handlers:
        ours.addHandler(_Notes())
        ours.propagate = False
    for slow in ("inference.transcripts", "media.in_order"):  # what takes minutes is told
        logging.getLogger(f"minigpt4_video.{slow}").setLevel(logging.INFO)
    if os.environ.get(DEBUG):
        return
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
