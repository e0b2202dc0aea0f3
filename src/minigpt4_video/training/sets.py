"""What a run learns from: the records of its data sets, read once at its beginning and gathered by what they show.

Records lie in a file, for tens of millions of them do not fit in memory; where each lies is a few arrays that are
mapped from disk, so that all processes of a machine share them. Listed once, a run draws the same n-th sample however
often it is interrupted, whatever has been added to the folders since.
"""

import json
import shutil
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from minigpt4_video.data.formats import read
from minigpt4_video.data.mixture import Part, by_language
from minigpt4_video.data.reading import media_key
from minigpt4_video.data.sample import Flaw, Record
from minigpt4_video.errors import DataError, RecipeError
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.messages import Message, media_parts
from minigpt4_video.training.recipe import DataSet, Evaluation

RECORDS = "records"
UNUSABLE = "unusable.jsonl"
"""Rows that cannot be used, with the reason for each."""
LISTED = "listed.json"
"""Written last: its presence says that all sets are there."""
LANGUAGES = ("en", "zh")

Numbers = npt.NDArray[np.int64]


class Group(NamedTuple):
    """Records that show the same."""

    records: tuple[Record, ...]

    @property
    def id(self) -> str:
        return self.records[0].id


class Groups(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Group: ...


class Skipped(NamedTuple):
    """A record that was left out, and why."""

    id: str
    reason: str
    sample: str = ""
    """The video or picture that cannot be read, where that is why: the same for all records about it."""
    held_out: bool = False
    """Whether it is one of those that are evaluated on, which say nothing of those that are learnt from."""


def gather(records: Iterable[Record | Flaw]) -> tuple[list[Group], list[Flaw]]:
    """A few records by what they show, in the order in which each thing is first shown; and what cannot be used."""
    together: dict[str, list[Record]] = {}
    flaws = []
    for number, record in enumerate(records):
        if isinstance(record, Flaw):
            flaws.append(record)
        else:
            together.setdefault(_shown(record, number), []).append(record)
    return [Group(tuple(held)) for held in together.values()], flaws


def _shown(record: Record, number: int) -> str:
    return media_key(record.messages) or f"words {number}"


class Listed:
    """The groups of a set, on disk; some 20 bytes each are mapped into memory. Groups are those of `gather`."""

    def __init__(self, folder: Path, chosen: Numbers | None = None) -> None:
        self.folder = folder
        self._at = np.load(folder / "at.npy", mmap_mode="r")
        """Where each record begins, group after group."""
        self._first = np.load(folder / "first.npy", mmap_mode="r")
        """Of each group, which of these is its first; and the end of all."""
        self._draw = np.load(folder / "draw.npy", mmap_mode="r")
        self._language = np.load(folder / "language.npy", mmap_mode="r")
        self.chosen = np.arange(len(self._first) - 1) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> Group:
        group = self.chosen[number]
        found = []
        with (self.folder / RECORDS).open("rb") as file:  # opened anew: processes that share it would move each other
            for at in self._at[self._first[group] : self._first[group + 1]]:
                file.seek(int(at))
                found.append(Record(*json.loads(file.readline())))
        return Group(tuple(found))

    @property
    def records(self) -> int:
        return int((self._first[self.chosen + 1] - self._first[self.chosen]).sum())

    @property
    def draws(self) -> npt.NDArray[np.uint64]:
        """Of each group a number that the names of its files decide, to hold some of them out."""
        drawn: npt.NDArray[np.uint64] = self._draw[self.chosen]
        return drawn

    def where(self, kept: npt.NDArray[np.bool_]) -> "Listed":
        """Those groups of it for which `kept` is true."""
        return Listed(self.folder, self.chosen[kept])

    def languages(self) -> dict[str, "Listed"]:
        """The groups of each language that there is. A video has one group for each where the set was listed so."""
        code = self._language[self.chosen]
        found = {name: self.where(code == number) for number, name in enumerate(LANGUAGES)}
        return {name: groups for name, groups in found.items() if len(groups)}

    def spoken(self, weights: Mapping[str, float]) -> "Listed":
        """Those of the languages that have a weight; all of them where none is named."""
        codes = [number for number, name in enumerate(LANGUAGES) if weights.get(name)]
        return self.where(np.isin(self._language[self.chosen], codes)) if weights else self


class Sets(NamedTuple):
    """The sets of a run as they were listed."""

    groups: list[Listed]
    flawed: int
    """Rows that cannot be used."""
    first: Skipped | None
    """The first of them."""

    @property
    def rows(self) -> int:
        return self.flawed + sum(one.records for one in self.groups)


def list_sets(sets: Sequence[DataSet], folder: Path) -> None:
    """Reads all sets to their end into `folder`, unless they are there already: written aside and renamed.

    Raises DataError for a set without a single sample.
    """
    if _are_listed(sets, folder):
        return
    shutil.rmtree(folder, ignore_errors=True)
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        with (aside / UNUSABLE).open("w", encoding="utf-8") as refused:
            flaws: list[Flaw] = []
            flawed = 0
            for number, one in enumerate(sets):
                place = aside / str(number)
                place.mkdir()
                found = _list(one, place, refused)
                flawed += found[0]
                flaws += found[1:2]
        told = {"sets": _named(sets), "flawed": flawed, "first": _skipped(flaws[0]) if flaws else None}
        (aside / LISTED).write_text(json.dumps(told), encoding="utf-8")
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def wait_for_sets(sets: Sequence[DataSet], folder: Path) -> None:
    """Until another process has listed them: hours for the largest, longer than a barrier of processes waits."""
    while not _are_listed(sets, folder):
        time.sleep(0.2)


def open_sets(sets: Sequence[DataSet], folder: Path) -> Sets:
    """What `list_sets` wrote, of each set the languages that are drawn from it."""
    told = json.loads((folder / LISTED).read_text(encoding="utf-8"))
    groups = [Listed(folder / str(number)) for number in range(len(sets))]
    groups = [found.spoken(one.languages) for found, one in zip(groups, sets, strict=True)]
    return Sets(groups, told["flawed"], Skipped(*told["first"]) if told["first"] else None)


def _named(sets: Sequence[DataSet]) -> list[dict[str, Any]]:
    """What decides the records of the sets, as JSON gives it back."""
    names = ("format", "path", "media", "texts", "subtitles", "rows")
    return [{**{name: getattr(one, name) for name in names}, "languages": bool(one.languages)} for one in sets]


def _are_listed(sets: Sequence[DataSet], folder: Path) -> bool:
    try:
        return bool(json.loads((folder / LISTED).read_text(encoding="utf-8"))["sets"] == _named(sets))
    except OSError:
        return False


def _skipped(flaw: Flaw) -> Skipped:
    return Skipped(flaw.where, f"{flaw.problem} {flaw.detail}".strip())


def _list(one: DataSet, folder: Path, refused: Any) -> tuple[Any, ...]:
    """One set into `folder`; how many of its rows cannot be used, and the first of those if there is one."""
    options: dict[str, Any] = {
        name: Path(value)
        for name, value in (("media", one.media), ("texts", one.texts), ("subtitles", one.subtitles))
        if value is not None
    }
    rows: Iterable[Record | Flaw] = read(one.format, Path(one.path), **options)
    at, high, low, draw, language = array("q"), array("Q"), array("Q"), array("Q"), bytearray()
    flawed: list[Any] = [0]
    place = 0
    with (folder / RECORDS).open("wb") as file:
        for number, row in enumerate(islice(rows, one.rows) if one.rows else rows):
            if isinstance(row, Flaw):
                flawed[0] += 1
                flawed[1:] = flawed[1:] or [row]
                refused.write(json.dumps({"id": row.where, "reason": _skipped(row).reason}) + "\n")
                continue
            shows = _shown(row, number) + (f"\n{row.language}" if one.languages else "")
            digest = blake2b(shows.encode(errors="surrogatepass"), digest_size=16).digest()
            line = json.dumps(row).encode() + b"\n"
            at.append(place)
            high.append(int.from_bytes(digest[:8]))
            low.append(int.from_bytes(digest[8:]))
            draw.append(_drawn(row.messages, shows))
            language.append(LANGUAGES.index(row.language))
            place += file.write(line)
    if not at:
        why = f": {flawed[1].where}: {flawed[1].problem}" if flawed[0] else ""
        raise DataError(f"{one.path} has nothing to train on{why}")
    order, first = _grouped(np.array(high), np.array(low))
    np.save(folder / "at.npy", np.array(at)[order])
    np.save(folder / "first.npy", first)
    heads = order[first[:-1]]
    np.save(folder / "draw.npy", np.array(draw)[heads])
    np.save(folder / "language.npy", np.frombuffer(bytes(language), np.uint8)[heads])
    return tuple(flawed)


def _drawn(messages: Sequence[Message], shows: str) -> int:
    """By the names of files alone: spans of a video, and a video in several sets or elsewhere, are drawn alike."""
    names = [PurePath(part["path"]).name for part in media_parts(messages)] or [shows]
    return min(int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()) for name in names)


def _grouped(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> tuple[Numbers, Numbers]:
    """Things by their digests: their numbers, equal ones together in the order in which each is first met; and where
    in these each group begins, with the end of all."""
    order = np.lexsort((low, high))  # stable
    begins = np.ones(len(order), bool)
    begins[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    met = order[begins]
    rank = np.empty(len(met), np.int64)
    rank[np.argsort(met)] = np.arange(len(met))
    group = np.empty(len(order), np.int64)
    group[order] = rank[np.cumsum(begins) - 1]
    first = np.concatenate([[0], np.cumsum(np.bincount(group))])
    return np.argsort(group, kind="stable"), first


def held_out(sets: Sequence[Listed], how: Evaluation) -> tuple[list[Listed], list[Listed]]:
    """What is trained on, and a share of all groups, at least one and about `most`, to evaluate on; both for each set.

    Decided by the names of the files shown, for all sets together: no file is on both sides, nor are spans of it, and
    another run over the same files, wherever they lie, decides the same. Raises RecipeError where that leaves nothing.
    """
    if how.share <= 0:
        return list(sets), []
    draws = np.concatenate([one.draws for one in sets])
    count = min(max(1, round(how.share * len(draws))), how.most)
    last = np.partition(draws, count - 1)[count - 1]
    trained, kept = [one.where(one.draws > last) for one in sets], [one.where(one.draws <= last) for one in sets]
    for number, one in enumerate(trained):
        if not len(one):
            raise RecipeError(
                f"[evaluation] share keeps back all of data[{number}], which shows too few files; give a smaller "
                "share, or 0"
            )
    return trained, kept


def parts_of(one: DataSet, groups: Listed) -> list[tuple[Listed, Part]]:
    """What is drawn from a set: all of it alike, or each language by its weight."""
    if not one.languages:
        return [(groups, Part(len(groups), one.weight))]
    found = groups.languages()
    try:
        parts = by_language(one.languages, {name: len(held) for name, held in found.items()}, one.weight)
    except DataError as error:
        raise RecipeError(f"{one.path}: {error}") from error
    return [(found[name], part) for name, part in parts.items()]


def tell_unusable(folder: Path, output: Path) -> None:
    """The list of rows that cannot be used, into the folder of the run."""
    write_whole(output / UNUSABLE, (folder / UNUSABLE).read_bytes())


def settings_of(sets: Sequence[DataSet]) -> list[dict[str, Any]]:
    """All of the sets that decides which sample is drawn n-th."""
    return [{name: value for name, value in asdict(one).items() if not name.startswith("expected")} for one in sets]
