"""Labels in the forms in which others train on them: webdataset, VideoFolder, Open-Sora's table, conversations."""

import csv
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from minigpt4_video.data.reading import tar_member
from minigpt4_video.errors import LabellingError
from minigpt4_video.inference.writing import write_whole
from minigpt4_video.labelling.checks import without_opening
from minigpt4_video.labelling.files import local_file
from minigpt4_video.media.pictures import Orientation, orientation_of

SHARD = 2**30
"""Bytes after which a tar is full."""
CLIPS_A_SHARD = 1000
TABLE = ("path", "text", "num_frames", "width", "height", "aspect_ratio", "fps", "text_len")

KEY = re.compile("[0-9a-f]{32}")
"""What our files are called, before their suffix: those of an earlier export are known by it."""

Row = dict[str, Any]


class Clip(NamedTuple):
    """A clip with its good rows."""

    path: str
    """The whole file, as the plan names it."""
    rows: list[Row]

    @property
    def key(self) -> str:
        return str(self.rows[0]["id"])

    @property
    def is_part(self) -> bool:
        return self.rows[0]["start"] is not None or self.rows[0]["end"] is not None

    @property
    def file(self) -> str:
        """The file from the folder of the videos; tables of older versions have the collection's name alone."""
        return str(self.rows[0].get("file") or self.rows[0]["video"])

    @property
    def text(self) -> str:
        """The first caption, without what says nothing of the video."""
        return without_opening(self.rows[0]["text"])


def clips(rows: Iterable[Row], path_of: Callable[[str], str]) -> Iterator[Clip]:
    """The clips of rows that follow each other, without those that have no label; `path_of` tells a row's file by its
    id. Collections may have one name for several files, so a clip is what shows the same span of the same file."""
    good = ((path_of(row["id"]), row) for row in rows if row["status"] == "success")
    for (path, *_), same in groupby(good, lambda one: (one[0], one[1]["start"], one[1]["end"])):
        yield Clip(path, [row for _, row in same])


def open_sora(found: Iterable[Clip], output: Path) -> int:
    """`open-sora.csv`, one line a clip. Parts of videos are written as files of their own, because it has no spans."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(TABLE)
    count = 0
    for clip in found:
        row = clip.rows[0]
        path = _file_of(clip, output / "open-sora-clips") if clip.is_part or _is_no_file(clip.path) else clip.path
        seconds = (row["end"] or row["duration"]) - (row["start"] or 0.0)
        told = [os.path.abspath(path), clip.text, round(seconds * row["fps"]), row["width"], row["height"]]
        told += [round(row["height"] / row["width"], 4), row["fps"], len(clip.text.split())]
        writer.writerow(told)
        count += 1
    write_whole(output / "open-sora.csv", text.getvalue().encode(errors="surrogateescape"))
    return count


def video_folder(found: Iterable[Clip], output: Path) -> int:
    """`videofolder/`: clips, `metadata.jsonl` and a card, as `load_dataset("videofolder")` reads it."""
    folder = output / "videofolder"
    lines, models, files = [], set(), set()
    for clip in found:
        file = _file_of(clip, folder / "videos")
        files.add(file.name)
        name = file.relative_to(folder).as_posix()
        labels = [
            {key: row[key] for key in ("style", "language", "prompt", "text", "data", "confidence")}
            for row in clip.rows
        ]
        lines.append(json.dumps({"file_name": name, "text": clip.text, "labels": labels}, ensure_ascii=False))
        models.add((clip.rows[0]["model"], clip.rows[0]["revision"], clip.rows[0]["made_by"]))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "metadata.jsonl", "".join(line + "\n" for line in lines).encode())
    made = "\n".join(
        f"* `{name}`, weights {revision}, minigpt4-video {version}" for name, revision, version in sorted(models)
    )
    card = (
        "---\ntask_categories:\n- text-to-video\n- video-text-to-text\ntags:\n- synthetic-captions\n---\n\n"
        f"# Captions written by a model\n\n{len(lines)} clips. The texts are a model's and were not corrected:\n\n"
        f"{made}\n\n"
        "`text` is the first caption of a clip; `labels` has all, each with what was asked and how sure the model was\n"
        "(mean log-probability of a token). The clips keep the licences of the videos that they were taken from.\n"
    )
    write_whole(folder / "README.md", card.encode())
    for old in (folder / "videos").glob("*"):
        if old.name not in files and KEY.fullmatch(old.stem):
            old.unlink()
    return len(lines)


def webdataset(found: Iterable[Clip], output: Path) -> int:
    """`webdataset/00000.tar` and on: `ID.mp4`, `ID.txt` with the first caption, `ID.json` with all rows. Those of an
    earlier export stay until all are written, and then go."""
    folder = output / "webdataset"
    fresh = folder / ".new"
    shutil.rmtree(fresh, ignore_errors=True)  # of an export that was interrupted
    fresh.mkdir(parents=True)
    count, number, size = 0, 0, 0
    archive: tarfile.TarFile | None = None
    for clip in found:
        if archive is None:
            archive = tarfile.open(fresh / f"{number:05d}.tar", "w")  # noqa: SIM115
        path = _file_of(clip, fresh)
        archive.add(path, f"{clip.key}{path.suffix}", filter=_plain)
        _add(archive, f"{clip.key}.txt", clip.text.encode())
        told = {"caption": clip.text, "labels": clip.rows}
        _add(archive, f"{clip.key}.json", json.dumps(told, ensure_ascii=False).encode())
        size += path.stat().st_size
        path.unlink()
        count += 1
        if size >= SHARD or count % CLIPS_A_SHARD == 0:
            archive.close()
            archive, number, size = None, number + 1, 0
    if archive is not None:
        archive.close()
    for old in folder.glob("[0-9][0-9][0-9][0-9][0-9].tar"):
        old.unlink()
    for shard in sorted(fresh.iterdir()):
        shard.rename(folder / shard.name)
    fresh.rmdir()
    return count


def messages(found: Iterable[Clip], output: Path) -> int:
    """`messages.jsonl` in LLaVA's form, which training reads as the format "llava", with whole videos only; the table
    itself, as the format "labels", has the spans too."""
    lines = []
    for clip in found:
        if clip.is_part or _is_no_file(clip.path):
            raise LabellingError(
                "conversations name whole videos; train on labels.parquet as the format labels instead"
            )
        turns = []
        for at, row in enumerate(clip.rows):
            turns.append({"from": "human", "value": ("<video>\n" if at == 0 else "") + row["prompt"]})
            turns.append({"from": "gpt", "value": row["text"]})
        lines.append(json.dumps({"id": clip.key, "video": clip.file, "conversations": turns}, ensure_ascii=False))
    write_whole(output / "messages.jsonl", "".join(line + "\n" for line in lines).encode())
    return len(lines)


EXPORTS: dict[str, Callable[[Iterable[Clip], Path], int]] = {
    "open-sora": open_sora, "videofolder": video_folder, "webdataset": webdataset, "messages": messages,
}  # fmt: skip


def _is_no_file(path: str) -> bool:
    return tar_member(path) is not None or "://" in path


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def _file_of(clip: Clip, folder: Path) -> Path:
    """A file that is the clip and nothing more, written into a folder under its id."""
    folder.mkdir(parents=True, exist_ok=True)
    with local_file(clip.path) as source:
        suffix = ".mp4" if clip.is_part else Path(clip.path).suffix if not _is_no_file(clip.path) else ".mp4"
        place = folder / f"{clip.key}{suffix}"
        aside = place.with_name(f".{place.name}")
        try:
            if clip.is_part:
                cut_out(source, clip.rows[0]["start"] or 0.0, clip.rows[0]["end"], aside)
            else:
                shutil.copyfile(source, aside)
        except (OSError, av.FFmpegError, ValueError) as error:
            aside.unlink(missing_ok=True)
            raise LabellingError(f"{clip.rows[0]['video']} cannot be written out: {error}") from error
        aside.replace(place)
    return place


def cut_out(source: Path, start: float, end: float | None, place: Path) -> None:
    """A part of a video as H.264 of its own, exact to the frame: copying packets would begin at another frame.

    Its frames are turned upright, and keep their times and the shape of their pixels."""
    with av.open(str(source)) as given, av.open(str(place), "w", format="mp4") as made:
        film = given.streams.video[0]
        out = made.add_stream("libx264", rate=film.average_rate or 25, options={"crf": "18"})
        out.pix_fmt = "yuv420p"
        converter = VideoReformatter()
        turn, first, begin, last = Orientation(), None, None, -1
        for frame in given.decode(film):
            time = float(frame.time or 0.0)
            if first is None:
                first, turn = time, orientation_of(frame, converter)
                width, height = (film.height, film.width) if turn.transposed else (film.width, film.height)
                out.width, out.height = width // 2 * 2, height // 2 * 2
                shape = film.sample_aspect_ratio
                if shape:
                    out.codec_context.sample_aspect_ratio = 1 / shape if turn.transposed else shape
                if frame.pts is not None:
                    out.codec_context.time_base = film.time_base
            if time - first < start - 1e-6:
                continue
            if end is not None and time - first >= end - 1e-6:
                break
            picture = _upright(frame, turn, out)
            if frame.pts is not None:
                begin = frame.pts if begin is None else begin
                last = picture.pts = max(frame.pts - begin, last + 1)  # some files go back in time
                picture.time_base = film.time_base
            made.mux(out.encode(picture))
        made.mux(out.encode())


def _upright(frame: av.VideoFrame, turn: Orientation, out: av.VideoStream) -> av.VideoFrame:
    """A frame turned, in the size of a stream, without its time."""
    if turn == Orientation():
        picture = frame.reformat(out.width, out.height, "yuv420p")
    else:
        turned = np.ascontiguousarray(turn.apply(frame.to_ndarray(format="rgb24")))
        picture = av.VideoFrame.from_ndarray(turned, format="rgb24").reformat(out.width, out.height, "yuv420p")
    picture.pts = None
    return picture
