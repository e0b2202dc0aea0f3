"""What may stand for a video on the command line: a file, an http(s) address, or a link to YouTube."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minigpt4_video.cli.output import note

SECONDS = 1800.0  # for fetching, which the person who waits can interrupt


@contextmanager
def video_file(source: str, subtitles: str, language: str | None) -> Iterator[Path]:
    """The file that `source` names; what was fetched is deleted afterwards. Raises MediaError."""
    from minigpt4_video.media import SourceRules, is_address, source_file
    from minigpt4_video.media.youtube import is_youtube, youtube_video

    if is_youtube(source):
        note(f"fetching {source}")
        with youtube_video(source, language=language, subtitles=subtitles == "auto") as file:
            yield file
    elif is_address(source):
        note(f"fetching {source}")
        with source_file(source, SourceRules(hosts=None, seconds=SECONDS)) as file:
            yield file
    else:
        yield Path(source)
