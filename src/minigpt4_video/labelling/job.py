"""A labelling job on disk: its settings and plan, which a resume must match, and what there is of its labels."""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from minigpt4_video import __version__
from minigpt4_video.errors import LabellingError
from minigpt4_video.inference.store import file_digest
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.labelling.changes import refuse_changes
from minigpt4_video.labelling.manifest import Plan, write_plan
from minigpt4_video.labelling.pieces import Pieces
from minigpt4_video.labelling.requests import Asked
from minigpt4_video.labelling.sources import Sources

SETTINGS = "job.json"
PLAN, ROWS = "plan", "rows"


@dataclass(frozen=True)
class Given:
    """All that decides what the labels are. A resume with other values is refused."""

    collection: str
    """The place of the collection, absolute."""
    requests: tuple[Asked, ...]
    model: str
    revision: str
    """Digest of the weights."""
    form: str | None = None
    media: str | None = None
    cut: str = ""
    """How videos are cut into clips."""
    frames: int | None = None
    long: str = "auto"
    subtitles: str = "auto"
    subtitle_language: str | None = None
    encoding: str | None = None
    speech: str = "off"
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    engine: str = "built-in"
    dtype: str = "auto"
    quantize: str | None = None
    agreement: str | None = None
    """Digest of the model that compares texts and frames."""

    def stated(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return told | {"requests": [vars(asked) for asked in self.requests]}


class Job(NamedTuple):
    """A job whose plan is on disk."""

    output: Path
    given: Given
    plan: Plan
    pieces: Pieces


def revision_of(folder: Path) -> str:
    """Digest of all files of a model, 16 hexadecimal digits."""
    import hashlib

    made = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        made.update(f"{file.relative_to(folder).as_posix()} {file_digest(file)}\n".encode())
    return made.hexdigest()[:16]


@contextmanager
def held(output: Path) -> Iterator[None]:
    """An output folder that no other process labels into meanwhile. Raises LabellingError."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / ".lock").open("w")
    except OSError as error:
        raise LabellingError(f"{output} cannot be used: {error.strerror or error}; name another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LabellingError(f"another process is labelling into {output}; wait for it, or stop it") from error
        yield


def planned(output: Path, given: Given, found: Callable[[], Sources], sources: Callable[[], Sources]) -> Job:
    """The job in a folder: the one that is there, where it was given the same, or else a new one, whose plan is made.
    `found` is what the collection holds, `sources` is that when it was cut.

    Raises LabellingError where another job is there, or other files.
    """
    if (output / SETTINGS).is_file():
        job = _resumed(output, given)
        kept = job.pieces.done(job.plan.rows, frozenset({"error"}))
        refuse_changes(output / PLAN, kept, found(), bool(given.cut))
        return job
    strangers = [file.name for file in output.iterdir() if file.name not in (PLAN, ".lock")]
    if strangers:
        raise LabellingError(f"{output} holds other files ({strangers[0]}); name an empty folder for the labels")
    shutil.rmtree(output / PLAN, ignore_errors=True)  # of a plan that was interrupted
    (output / PLAN).mkdir()
    plan = write_plan(output / PLAN, sources(), given.requests)
    (output / ROWS).mkdir(exist_ok=True)
    told = {"given": given.stated(), "plan": plan._asdict(), "made_by": __version__}
    write_whole(output / SETTINGS, json.dumps(told, ensure_ascii=False, indent=2).encode(errors="surrogateescape"))
    return Job(output, given, plan, Pieces(output / ROWS))


def _resumed(output: Path, given: Given) -> Job:
    told = read_settings(output)
    before, now = told["given"], json.loads(json.dumps(given.stated()))
    for name, value in now.items():
        if before.get(name, value) != value:  # an older version does not tell all
            raise LabellingError(
                f"{output} holds a job with another {name.replace('_', ' ')} ({_short(before.get(name))}, now"
                f" {_short(value)}); give the same as before to go on, or name another folder"
            )
    return Job(output, given, Plan(**told["plan"]), Pieces(output / ROWS))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 80 else text[:77] + "..."


def read_settings(output: Path) -> dict[str, Any]:
    """What a job was given. Raises LabellingError where a folder holds none."""
    try:
        told: dict[str, Any] = json.loads((output / SETTINGS).read_text(encoding="utf-8", errors="surrogateescape"))
        Plan(**told["plan"])
        told["given"]["requests"]
    except FileNotFoundError as error:
        raise LabellingError(f"{output} holds no labels; name the folder that was given as --output") from error
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise LabellingError(f"{output / SETTINGS} cannot be read; it is damaged") from error
    return told
