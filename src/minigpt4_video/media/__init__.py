"""Files to frames with times and to subtitles with times, and which subtitle goes with which frame."""

from minigpt4_video.errors import MediaError
from minigpt4_video.media.alignment import Cue, align
from minigpt4_video.media.subtitles import SubtitleSource, find_subtitles, read_subtitles
from minigpt4_video.media.video import (
    Clip,
    SubtitleTrack,
    VideoInfo,
    probe,
    read_clip,
    read_frames,
    sample_times,
)

__all__ = [
    "Clip",
    "Cue",
    "MediaError",
    "SubtitleSource",
    "SubtitleTrack",
    "VideoInfo",
    "align",
    "find_subtitles",
    "probe",
    "read_clip",
    "read_frames",
    "read_subtitles",
    "sample_times",
]
