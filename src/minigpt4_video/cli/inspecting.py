"""What is in a video and what of it a model would be shown."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, quiet, say_json, visible
from minigpt4_video.cli.sources import video_file
from minigpt4_video.cli.subtitles import check_savable, write_subtitles

if TYPE_CHECKING:
    from minigpt4_video.inference.footage import Footage
    from minigpt4_video.planning import Plan


def inspect(
    video: options.VideoSource,
    model: options.Model = "tiny",
    subtitles: options.Subtitles = "auto",
    subtitle_language: options.SubtitleLanguage = None,
    encoding: options.Encoding = None,
    speech: options.Speech = None,
    save_subtitles: options.SaveSubtitles = None,
    frames: options.Frames = None,
    question: Annotated[
        str | None, Option(help="Plan for this question [default: a short one].", show_default=False)
    ] = None,
    sheet: Annotated[
        Path | None, Option(metavar="FILE.png", help="Draw the frames on one picture.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Show a video's streams, and the frames, subtitles and tokens a model would be given. Loads no weights.

    \b
    minigpt4-video inspect clip.mp4
    minigpt4-video inspect clip.mp4 --frames 8 --sheet frames.png
    """
    from minigpt4_video.inference.writing import check_writable, write_whole
    from minigpt4_video.media import probe

    if sheet is not None:
        check_writable(sheet)
    check_savable(save_subtitles)
    with video_file(video, subtitles, subtitle_language) as file:
        probe(file)  # a wrong file is told at once, before transformers is loaded
        quiet()
        from minigpt4_video.inference.contact_sheet import FRAME_WIDTH, draw_sheet
        from minigpt4_video.inference.footage import take_footage
        from minigpt4_video.inference.loading import find_model, load_processor
        from minigpt4_video.inference.store import find_store
        from minigpt4_video.inference.transcripts import stored_words

        processor = load_processor(find_model(model))
        footage = take_footage(
            file,
            processor,
            subtitles=subtitles,
            subtitle_language=subtitle_language,
            encoding=encoding,
            speech=speech,
            frames=frames,
            listen=partial(stored_words, find_store()),
        )
        write_subtitles(save_subtitles, footage.cues)
        plan = footage.plan(processor, question)
        if sheet is not None:
            drawn = draw_sheet(footage.thumbnails(FRAME_WIDTH).frames, list(footage.clip.times), footage.texts)
            write_whole(sheet, drawn.png)
            note(f"contact sheet: {sheet}")
            if drawn.undrawn:
                note(f"note: no font here has the characters {drawn.undrawn[:20]}; install one, such as Noto Sans CJK")
        if json:
            say_json(_as_json(video, footage, plan, model))
        else:
            _print(footage, plan, model)


def _as_json(source: str, footage: "Footage", plan: "Plan", model: str) -> dict[str, object]:
    from minigpt4_video.media import find_beside

    kept = set(plan.kept_frames)
    return {
        "video": source,
        "streams": asdict(footage.info)
        | {"subtitle_tracks": [track._asdict() for track in footage.info.subtitle_tracks]},
        "subtitles": footage.said_in,
        "subtitle_files": [
            {"file": str(found.path), "language": found.language} for found in find_beside(footage.path)
        ],
        "frames": [
            {"time": round(float(time), 6), "subtitle": text, "kept": index in kept}
            for index, (time, text) in enumerate(zip(footage.clip.times, footage.texts, strict=True))
        ],
        "model": model,
        "plan": asdict(plan),
    }


def _choices(footage: "Footage") -> str:
    """The subtitle files beside a video and the tracks in it, in words."""
    from minigpt4_video.media import find_beside

    files = [
        found.path.name + (f" ({found.language})" if found.language else "") for found in find_beside(footage.path)
    ]
    tracks = [
        f"track {track.number} ({', '.join(filter(None, [track.language, track.codec]))}"
        f"{'' if track.is_text else ', pictures of text'})"
        for track in footage.info.subtitle_tracks
    ]
    return ", ".join([*files, *tracks]) or "none"


def _print(footage: "Footage", plan: "Plan", model: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from minigpt4_video.inference.contact_sheet import clock

    console = Console(soft_wrap=False, highlight=False)
    console.print(Text(visible(footage.path.name), style="bold"), soft_wrap=True)
    console.print(Text(visible(footage.facts())), soft_wrap=True)
    console.print(Text(visible(f"subtitles to choose from: {_choices(footage)}")), soft_wrap=True)
    rows = Table("frame", "time", "subtitle", box=None, pad_edge=False, header_style="dim")
    kept = dict(zip(plan.kept_frames, plan.kept_subtitles, strict=True))
    for index, (time, text) in enumerate(zip(footage.clip.times, footage.texts, strict=True)):
        said = Text(visible(kept.get(index, text)), style="" if index in kept else "dim")
        rows.add_row(
            str(index + 1), clock(float(time)), said if index in kept else Text("(left out) ").append_text(said)
        )
    console.print(rows)
    tokens = Table(box=None, pad_edge=False, show_header=False)
    for name, value in [
        (f"{plan.frames} frames", plan.frame_tokens),
        ("their tags", plan.tag_tokens),
        ("subtitles", plan.subtitle_tokens),
        ("question", plan.question_tokens),
        ("kept for the answer", plan.answer_reserve),
    ]:
        tokens.add_row(name, str(value))
    tokens.columns[1].justify = "right"
    console.print(Text(f"{plan.total} of the {plan.window} tokens of {model}:"), soft_wrap=True)
    console.print(tokens)
    for sentence in plan.left_out:
        console.print(Text(sentence), soft_wrap=True)
