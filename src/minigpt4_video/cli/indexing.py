"""The verb that makes a long video ready for questions: index."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import Progress, note, quiet
from minigpt4_video.cli.sources import video_file


def index(
    video: options.VideoSource,
    output: Annotated[Path, Option(metavar="FOLDER", help="Where the index goes, or goes on.", show_default=False)],
    clips: Annotated[
        Literal["cuts", "windows"], Option(help="Clips from cut to cut, or windows of one length.")
    ] = "cuts",
    seconds: Annotated[float, Option(help="The longest clip, and the length of windows.")] = 60.0,
    languages: Annotated[
        Literal["both", "en", "zh"], Option(help="In which clips are described; questions in them find clips.")
    ] = "both",
    sentences: options.Sentences = None,
    model: options.Model = "tiny",
    subtitles: options.Subtitles = "auto",
    subtitle_language: options.SubtitleLanguage = None,
    encoding: options.Encoding = None,
    speech: options.Speech = None,
    frames: options.Frames = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
) -> None:
    """Describe a long video clip by clip, for any number of questions. Interrupted, the same command goes on.

    \b
    minigpt4-video index film.mp4 --output film.index
    minigpt4-video ask film.mp4 "Who is afraid of the dog?" --index film.index
    """
    from minigpt4_video.media import probe

    with video_file(video, subtitles, subtitle_language) as file:
        probe(file)  # a wrong file is told at once, before torch and the weights are loaded
        quiet()
        from minigpt4_video.inference import VideoChat
        from minigpt4_video.inference.store import find_store
        from minigpt4_video.long_video.choosing import index_video
        from minigpt4_video.long_video.clips import Cutting
        from minigpt4_video.long_video.index import PROMPTS, Settings
        from minigpt4_video.long_video.sentences import Encoder

        prompts = tuple(one for one in PROMPTS if languages in ("both", one[1]))
        settings = Settings(prompts, Cutting(clips, seconds), frames)
        encoder = Encoder(sentences) if sentences else None
        chat = VideoChat.from_pretrained(model, device, dtype, store=find_store(), quantize=quantize)
        with Progress("indexed") as progress:
            made = index_video(
                chat,
                file,
                output,
                settings=settings,
                encoder=encoder,
                subtitles=subtitles,
                subtitle_language=subtitle_language,
                encoding=encoding,
                speech=speech,
                progress=progress.told,
            )
    said = made.about["subtitles"] or "no subtitles"
    note(f"{len(made.clips)} clips of {made.about['duration'] / 60:.1f} minutes, {said}: {output}")
