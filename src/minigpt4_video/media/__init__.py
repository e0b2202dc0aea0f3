"""Files to frames with times and to subtitles with times, and which subtitle goes with which frame."""

from minigpt4_video.errors import MediaError
from minigpt4_video.media.alignment import Cue, align
from minigpt4_video.media.guarded import (
    Limits,
    Nursery,
    Watched,
    probe_guarded,
    read_clip_guarded,
    read_subtitles_guarded,
    read_video_guarded,
    stream_frames_guarded,
)
from minigpt4_video.media.picture_folder import probe_picture_folder, read_picture_folder
from minigpt4_video.media.probing import SubtitleTrack, VideoInfo, probe
from minigpt4_video.media.remote import SourceRules, is_address, source_file
from minigpt4_video.media.sampling import Rule, sample_times
from minigpt4_video.media.subtitles import (
    SubtitleSource,
    as_webvtt,
    find_beside,
    find_subtitles,
    read_subtitles,
    subtitle_sources,
)
from minigpt4_video.media.transcription import Recogniser, lines, transcribe
from minigpt4_video.media.video import Clip, read_clip, read_frames, unique_frames

__all__ = [
    "Clip",
    "Cue",
    "Limits",
    "MediaError",
    "Nursery",
    "Recogniser",
    "Rule",
    "SourceRules",
    "SubtitleSource",
    "SubtitleTrack",
    "VideoInfo",
    "Watched",
    "align",
    "as_webvtt",
    "find_beside",
    "find_subtitles",
    "is_address",
    "lines",
    "probe",
    "probe_guarded",
    "probe_picture_folder",
    "read_clip",
    "read_clip_guarded",
    "read_frames",
    "read_picture_folder",
    "read_subtitles",
    "read_subtitles_guarded",
    "read_video_guarded",
    "sample_times",
    "source_file",
    "stream_frames_guarded",
    "subtitle_sources",
    "transcribe",
    "unique_frames",
]
