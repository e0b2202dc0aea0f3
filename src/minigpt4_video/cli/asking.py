"""The verbs that put questions to a model: ask, chat, caption."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from typer import Argument, Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import Progress, note, quiet, say, say_json
from minigpt4_video.cli.sources import video_file
from minigpt4_video.cli.subtitles import check_savable, write_subtitles
from minigpt4_video.errors import UserError

if TYPE_CHECKING:
    from minigpt4_video.inference import Answer, Evidence, Stream, Video
    from minigpt4_video.inference.footage import Said
    from minigpt4_video.long_video.answering import LongVideo, Told

ReportFile = Annotated[
    Path | None,
    Option(metavar="FILE.html", help="Write a page with frames, subtitles, plan and answer.", show_default=False),
]


def ask(
    video: options.VideoSource,
    question: Annotated[str, Argument(help="What you want to know.", show_default=False)],
    model: options.Model = "tiny",
    subtitles: options.Subtitles = "auto",
    subtitle_language: options.SubtitleLanguage = None,
    encoding: options.Encoding = None,
    speech: options.Speech = None,
    save_subtitles: options.SaveSubtitles = None,
    frames: options.Frames = None,
    long: options.Long = "auto",
    index: options.IndexFolder = None,
    sentences: options.Sentences = None,
    way: Annotated[
        Literal["auto", "frames", "texts", "map"],
        Option(help="How a long video's clips are used: shown anew, by their descriptions alone, or asked one by one."),
    ] = "auto",
    json: options.Json = False,
    report: ReportFile = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = None,
) -> None:
    """Answer a question about a video.

    \b
    minigpt4-video ask clip.mp4 "What happens?"
    minigpt4-video ask clip.mp4 "What does she say?" --subtitles clip.zh.srt --report answer.html
    minigpt4-video ask https://example.org/clip.mp4 "What happens?"
    """
    if not question.strip():
        raise UserError("the question is empty; write what you want to know, in quotation marks")
    taken = _Taken(
        video, subtitles, subtitle_language, encoding, speech, save_subtitles, frames, long, index, sentences
    )
    loaded = _Loaded(model, device, dtype, quantize)
    _answer(taken, question, loaded, json, report, max_new_tokens, temperature, seed, way)


def caption(
    video: options.VideoSource,
    style: Annotated[Literal["brief", "detailed", "tags"], Option(help="How much to tell.")] = "brief",
    language: Annotated[Literal["en", "zh"], Option(help="English or Chinese.")] = "en",
    model: options.Model = "tiny",
    subtitles: options.Subtitles = "auto",
    subtitle_language: options.SubtitleLanguage = None,
    encoding: options.Encoding = None,
    speech: options.Speech = None,
    save_subtitles: options.SaveSubtitles = None,
    frames: options.Frames = None,
    json: options.Json = False,
    report: ReportFile = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = None,
) -> None:
    """Describe a video.

    \b
    minigpt4-video caption clip.mp4
    minigpt4-video caption clip.mp4 --style detailed --language zh
    """
    from minigpt4_video.instructions import CAPTION_STYLE

    request = CAPTION_STYLE[language][style]
    taken = _Taken(video, subtitles, subtitle_language, encoding, speech, save_subtitles, frames)
    _answer(taken, request, _Loaded(model, device, dtype, quantize), json, report, max_new_tokens, temperature, seed)


def chat(
    video: options.VideoSource,
    model: options.Model = "tiny",
    subtitles: options.Subtitles = "auto",
    subtitle_language: options.SubtitleLanguage = None,
    encoding: options.Encoding = None,
    speech: options.Speech = None,
    save_subtitles: options.SaveSubtitles = None,
    frames: options.Frames = None,
    long: options.Long = "auto",
    index: options.IndexFolder = None,
    sentences: options.Sentences = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = None,
) -> None:
    """Talk about a video; each question knows of those before it.

    One question a line. An empty line begins a new conversation; end with Ctrl-D.

    \b
    minigpt4-video chat clip.mp4
    """
    taken = _Taken(
        video, subtitles, subtitle_language, encoding, speech, save_subtitles, frames, long, index, sentences
    )
    with _opened(taken, _Loaded(model, device, dtype, quantize)) as opened:
        _introduce(opened)
        from minigpt4_video.inference import Conversation

        conversation = opened.chat()
        while line := _next_line():
            if not line.strip():
                conversation = opened.chat()
                note("(a new conversation)")
                continue
            try:
                for piece in conversation.stream(
                    line.strip(), max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
                ):
                    say(piece, end="")
                say("")
                _tell(conversation.left_out)
                if not isinstance(conversation, Conversation):
                    _point_out(conversation.evidence)
            except UserError as error:
                note(f"error: {str(error).rstrip('.')}; an empty line begins a new conversation")


def _next_line() -> str:
    """The next line with its end, "" at the end of the input."""
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline()


class _Taken(NamedTuple):
    """A video and what is to be taken from it."""

    source: str
    subtitles: str
    subtitle_language: str | None
    encoding: str | None
    speech: str | None
    save_subtitles: Path | None
    frames: int | None
    long: Literal["auto", "on", "off"] = "off"
    index_folder: Path | None = None
    sentences: str | None = None


class _Loaded(NamedTuple):
    """A model and how to load it."""

    model: str
    device: str
    dtype: str
    quantize: Literal["8bit", "4bit"] | None


@contextmanager
def _opened(taken: _Taken, loaded: _Loaded) -> "Iterator[Video | LongVideo]":
    from minigpt4_video.media import probe

    check_savable(taken.save_subtitles)
    with video_file(taken.source, taken.subtitles, taken.subtitle_language) as file:
        probe(file)  # a wrong file is told at once, before torch and the weights are loaded
        quiet()
        from minigpt4_video.inference import VideoChat
        from minigpt4_video.inference.store import find_store

        chat = VideoChat.from_pretrained(
            loaded.model, loaded.device, loaded.dtype, store=find_store(), quantize=loaded.quantize
        )
        from minigpt4_video.long_video.choosing import open_video
        from minigpt4_video.long_video.sentences import Encoder

        with Progress("indexed") as progress:
            video = open_video(
                chat,
                file,
                long=taken.long,
                index=taken.index_folder,
                encoder=Encoder(taken.sentences) if taken.sentences else None,
                subtitles=taken.subtitles,
                subtitle_language=taken.subtitle_language,
                encoding=taken.encoding,
                speech=taken.speech,
                frames=taken.frames,
                tell=note,
                progress=progress.told,
            )
        write_subtitles(taken.save_subtitles, _said(video).cues)
        yield video


def _said(video: "Video | LongVideo") -> "Said":
    from minigpt4_video.inference import Video
    from minigpt4_video.inference.footage import Said

    if not isinstance(video, Video):
        return video.said
    return Said(video.footage.cues, video.footage.said_in, video.footage.unsaid)


def _introduce(video: "Video | LongVideo") -> None:
    said = _said(video)
    note(
        f"model: {video.model.name} on {video.model.model.device}; subtitles: {said.source or f'none ({said.missing})'}"
    )


def _point_out(evidence: "Sequence[Evidence]") -> None:
    """Where in a long video an answer comes from."""
    from minigpt4_video.inference.contact_sheet import clock

    for one in evidence:
        note(f"from {clock(one.start)} to {clock(one.end)} (score {one.score:.2f}): {one.text}")


def _tell(left_out: Sequence[str]) -> None:
    for sentence in left_out:
        note(f"note: {sentence}")


def _answer(
    taken: _Taken,
    question: str,
    loaded: _Loaded,
    json: bool,
    report: Path | None,
    max_new_tokens: int | None,
    temperature: float,
    seed: int | None,
    way: Literal["auto", "frames", "texts", "map"] = "auto",
) -> None:
    if report is not None:
        from minigpt4_video.inference.writing import check_writable

        check_writable(report)
    with _opened(taken, loaded) as video:
        stream = _asked(video, question, way, max_new_tokens, temperature, seed)
        try:
            for piece in stream:
                if not json:
                    say(piece, end="")
        finally:
            stream.close()
        answer = stream.answer
        if json:
            say_json(
                {"video": taken.source, "question": question, "model": loaded.model, "subtitles": _said(video).source}
                | answer.as_json()
            )
        else:
            say("")
            if answer.evidence:
                _tell(answer.plan.left_out)
            _point_out(answer.evidence)
        if report is not None:
            _write_report(report, video, question, answer)


def _asked(
    video: "Video | LongVideo",
    question: str,
    way: Literal["auto", "frames", "texts", "map"],
    max_new_tokens: int | None,
    temperature: float,
    seed: int | None,
) -> "Stream | Told":
    from minigpt4_video.inference import Video

    if not isinstance(video, Video):
        _introduce(video)
        return video.stream(question, way, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    plan = video.plan(question, max_new_tokens=max_new_tokens)
    _introduce(video)
    if way != "auto":
        note(
            f"note: --way {way} is for videos of which clips are found; this one is shown whole (--long on finds clips)"
        )
    _tell(plan.left_out)
    return video.stream(question, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)


def _write_report(file: Path, video: "Video | LongVideo", question: str, answer: "Answer") -> None:
    from minigpt4_video.inference import Video
    from minigpt4_video.inference.report import FRAME_WIDTH, Shown, Turn, page
    from minigpt4_video.inference.writing import write_whole

    footage = (video if isinstance(video, Video) else video.show(answer.evidence)).footage
    thumbnails = footage.thumbnails(FRAME_WIDTH)
    shown = Shown(footage.path.name, footage.facts(), thumbnails.frames, list(footage.clip.times), footage.texts)
    html = page(shown, [Turn(question, answer)], video.model.name)
    write_whole(file, html.encode("utf-8", errors="replace"))
    note(f"report: {file}")
