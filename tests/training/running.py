"""The command line in processes that can be killed.

They are forked from one that has imported everything and done nothing else, so that a start costs no seconds.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOO_LONG = 300
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["peft", "minigpt4_video.cli", "minigpt4_video.training.train"])


def start(log: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """A process that runs `minigpt4-video ARGUMENTS`, with what it says added to `log`."""
    process = CONTEXT.Process(target=_run, args=(str(log), arguments, dict(environment or {})))
    process.start()
    return process


def run(log: Path, *arguments: str) -> int:
    """Its exit status."""
    process = start(log, *arguments)
    process.join()
    return int(process.exitcode)


def run_together(log: Path, processes: int, *arguments: str) -> list[int]:
    """Exit statuses of processes that know of each other by what torchrun puts into their environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(processes)}
    started = []
    for rank in range(processes):
        mine = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        started.append(start(log, *arguments, environment=common | mine))
    for process in started:
        process.join(TOO_LONG)
        if process.exitcode != 0:  # the others would wait for it for ever
            for other in started:
                other.kill()
    return [int(process.exitcode) for process in started]


def _run(log: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    from minigpt4_video.cli import main

    os.environ.update(environment)

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    sys.exit(main(list(arguments)))
