"""What verbs do with a video's subtitles besides giving them to a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minigpt4_video.cli.output import note

if TYPE_CHECKING:
    from minigpt4_video.media import Cue


def check_savable(file: Path | None) -> None:
    """Refuse a file that cannot be written, or that would not be read again, before the work. Raises UserError."""
    from minigpt4_video.errors import UserError
    from minigpt4_video.inference.writing import check_writable

    if file is not None:
        if file.suffix.lower() != ".vtt":
            raise UserError(f"{file} is no name for subtitles in WebVTT; end it with .vtt")
        check_writable(file)


def write_subtitles(file: Path | None, cues: "Sequence[Cue]") -> None:
    from minigpt4_video.inference.writing import write_whole
    from minigpt4_video.media import as_webvtt

    if file is None:
        return
    if not cues:
        note(f"note: {file} is not written, for there are no subtitles")
        return
    write_whole(file, as_webvtt(cues).encode(errors="replace"))
    note(f"subtitles: {file}")
