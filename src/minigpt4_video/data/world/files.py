"""Scenes on disk: H.264 files, subtitles beside them, and one line of JSON for each with all that can be asked."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import av

from minigpt4_video.data.world import language as words
from minigpt4_video.data.world.render import Pixels
from minigpt4_video.data.world.render import render as render_frames
from minigpt4_video.data.world.scene import Language, Scene, Split, make_scene
from minigpt4_video.errors import UserError
from minigpt4_video.media.alignment import Cue

FPS = 10
SIZE = 128
QUESTIONS = "questions.jsonl"


def render(
    output: Path,
    *,
    seed: int = 0,
    count: int = 1,
    split: Split = "held-out",
    language: Language | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Writes scenes `seed` to `seed + count - 1` as NAME.mp4 and NAME.srt, and `questions.jsonl` last; returns the
    videos.

    The same numbers give the same files. `progress` is called with how many are done. Raises UserError for a count
    below one or an output that is a file.
    """
    if count < 1:
        raise UserError(f"cannot render {count} videos; ask for at least one")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; name a folder to render into")
    output.mkdir(parents=True, exist_ok=True)
    videos, rows = [], []
    for number in range(seed, seed + count):
        scene = make_scene(number, split, language)
        video = output / f"{split}-{number:06d}.mp4"
        write_video(scene, video)
        cues = words.cues(scene)
        if cues:
            write_text(video.with_suffix(".srt"), srt(cues))
        rows.append(json.dumps(record(scene, video.name), ensure_ascii=False))
        videos.append(video)
        if progress is not None:
            progress(number - seed + 1)
    write_text(output / QUESTIONS, "\n".join(rows) + "\n")
    return videos


def record(scene: Scene, video: str) -> dict[str, object]:
    """Everything known about one rendered scene, ready for JSON."""
    return {
        "video": video,
        "seed": scene.seed,
        "split": scene.split,
        "language": scene.language,
        "duration": scene.seconds,
        "captions": {style: words.caption(scene, style, scene.language) for style in ("brief", "detailed", "tags")},
        "questions": [asdict(question) for question in words.questions(scene, scene.language)],
    }


def write_video(scene: Scene, path: Path) -> None:
    """One scene as a file. One encoder thread, so that the bytes repeat."""
    total = round(scene.seconds * FPS)
    write_frames(render_frames(scene, [index / total for index in range(total)], SIZE), path, FPS, SIZE)


def write_frames(frames: Iterable[Pixels], path: Path, fps: int, size: int) -> None:
    """Square frames as H.264 in MP4, written aside and renamed."""
    aside = path.with_name(path.name + ".part")
    with av.open(str(aside), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "threads": "1", "preset": "veryfast"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    aside.replace(path)


def srt(cues: Iterable[Cue]) -> str:
    """Subtitles in SubRip form."""
    blocks = []
    for number, cue in enumerate(cues, start=1):
        blocks.append(f"{number}\n{_stamp(cue.start)} --> {_stamp(cue.end)}\n{cue.text}\n")
    return "\n".join(blocks)


def _stamp(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{rest:03d}"


def write_text(path: Path, text: str) -> None:
    """Written aside and renamed."""
    aside = path.with_name(path.name + ".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def statistics(count: int, split: Split = "train", seed: int = 0) -> dict[str, object]:
    """What so many scenes hold: questions by kind and by what they need, and how often the commonest answer is right.

    `prior` is the accuracy of always giving a kind's commonest answer in each language, averaged over kinds.
    """
    kinds: Counter[str] = Counter()
    needs: Counter[str] = Counter()
    answers: dict[str, dict[str, Counter[str]]] = {}
    for number in range(seed, seed + count):
        scene = make_scene(number, split)
        for question in words.questions(scene, scene.language):
            kinds[question.kind] += 1
            needs[question.needs] += 1
            answers.setdefault(question.kind, {}).setdefault(question.language, Counter())[question.answer] += 1
    prior = {
        kind: sum(max(counter.values()) for counter in by_language.values()) / kinds[kind]
        for kind, by_language in answers.items()
    }
    return {
        "scenes": count,
        "questions": kinds.total(),
        "kinds": dict(sorted(kinds.items())),
        "needs": dict(sorted(needs.items())),
        "prior_by_kind": {kind: round(value, 3) for kind, value in sorted(prior.items())},
        "prior": round(sum(prior.values()) / len(prior), 3),
    }
