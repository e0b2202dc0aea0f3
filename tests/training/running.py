"""The command line in processes that can be killed.

They are forked from one that has imported everything and done nothing else, so that a start costs no seconds.
"""

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["peft", "minigpt4_video.cli", "minigpt4_video.training.train"])


def start(log: Path, *arguments: str) -> Any:
    """A process that runs `minigpt4-video ARGUMENTS`, with what it says added to `log`."""
    process = CONTEXT.Process(target=_run, args=(str(log), arguments))
    process.start()
    return process


def run(log: Path, *arguments: str) -> int:
    """Its exit status."""
    process = start(log, *arguments)
    process.join()
    return int(process.exitcode)


def _run(log: str, arguments: tuple[str, ...]) -> None:
    from minigpt4_video.cli import main

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    sys.exit(main(list(arguments)))
