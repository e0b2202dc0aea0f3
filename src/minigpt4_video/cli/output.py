"""Answers go to stdout; whatever else there is to say goes to stderr."""

import json
import logging
import os
import sys
import warnings
from typing import Any

DEBUG = "MINIGPT4_VIDEO_DEBUG"


def note(text: str) -> None:
    """One line for the person who watches."""
    print(" ".join(text.split()), file=sys.stderr, flush=True)


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


def say_json(value: Any) -> None:
    say(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def quiet() -> None:
    """Keep the libraries' progress bars and advice away from stderr; call before they are imported.

    With the debug variable set, they may speak.
    """
    ours = logging.getLogger("minigpt4_video")
    if not ours.handlers:
        lines = logging.StreamHandler()
        lines.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(lines)
        ours.propagate = False
    if os.environ.get(DEBUG):
        return
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
