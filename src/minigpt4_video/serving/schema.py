"""What a chat request may hold: OpenAI's fields as far as they mean something here, and a few of our own.

Fields that change nothing are taken and left alone, because clients send them unasked; those that would change the
answer in a way that this server cannot are refused.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


def _text_or_list(value: Any) -> str | None:
    """Which of both something is meant to be, so that a mistake in it is told as one of that form."""
    return "(text)" if isinstance(value, str) else "(list)" if isinstance(value, list) else None


def _part_type(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"({kind})" if isinstance(kind, str) else None


# Tags in brackets are left out where the place of a mistake is told (`faults.described`).
Given = TypeVar("Given")
TextOr = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[Given, Tag("(list)")],
    Discriminator(
        _text_or_list, custom_error_type="text_or_list", custom_error_message="Input should be a text or a list"
    ),
]

MOST_CUES = 5000
"""Of a video; a film has some two thousand."""


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Cue(_Form):
    """One subtitle with its time in the video."""

    start: Seconds
    end: Seconds
    text: str


Subtitles = Annotated[
    TextOr[Annotated[list[Cue], Field(max_length=MOST_CUES)]],
    Field(
        description='"auto": a track inside the video; "off"; the text of a subtitle file; or cues with their times.'
    ),
]


class Text(_Form):
    type: Literal["text"]
    text: str


class ImageSource(_Form):
    url: str
    detail: str | None = None


class Image(_Form):
    type: Literal["image_url"]
    image_url: ImageSource


class VideoSource(_Form):
    url: str
    subtitles: Subtitles | None = None
    num_frames: Annotated[int, Field(ge=1)] | None = None
    start: Seconds | None = None
    end: Seconds | None = None


class Video(_Form):
    type: Literal["video_url"]
    video_url: VideoSource


class UploadedFile(_Form):
    file_id: str


class File(_Form):
    type: Literal["file"]
    file: UploadedFile


Part = Annotated[
    Annotated[Text, Tag("(text)")]
    | Annotated[Image, Tag("(image_url)")]
    | Annotated[Video, Tag("(video_url)")]
    | Annotated[File, Tag("(file)")],
    Discriminator(
        _part_type,
        custom_error_type="part",
        custom_error_message="A part has the type 'text', 'image_url', 'video_url' or 'file'",
    ),
]


class Message(BaseModel):
    """Clients send an earlier answer back with all its fields, which are empty here."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: TextOr[list[Part]]
    name: str | None = None

    @model_validator(mode="after")
    def _nothing_else(self) -> "Message":
        for name, value in (self.model_extra or {}).items():
            if value not in (None, [], ""):
                raise ValueError(f"a message with {name!r:.40} cannot be answered; leave it out")
        return self


class StreamOptions(BaseModel):
    include_usage: bool = False
    include_obfuscation: bool = False


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}
"""Fields that this server cannot follow, each with what it may be nevertheless."""

WITHOUT_EFFECT = {
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "metadata",
    "store",
    "service_tier",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
}


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str = ""
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    stop: TextOr[Annotated[list[str], Field(max_length=4)]] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    subtitles: Subtitles | None = None
    num_frames: Annotated[int, Field(ge=1)] | None = None
    long: Annotated[
        Literal["auto", "on", "off"] | None,
        Field(description='Whether answers come from the clips that a question is about; "auto": of long videos.'),
    ] = None

    @model_validator(mode="after")
    def _nothing_that_is_not_done(self) -> "ChatRequest":
        for name, value in (self.model_extra or {}).items():
            if name in WITHOUT_EFFECT or value is None:
                continue
            if name not in NEUTRAL:
                raise ValueError(f"there is no field {name!r:.40}")
            if value not in NEUTRAL[name]:
                raise ValueError(f"{name} cannot be followed; leave it out")
        return self
