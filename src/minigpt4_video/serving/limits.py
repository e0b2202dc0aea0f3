"""What one request may cost, and all of them together; a request can only ask for less."""

from dataclasses import dataclass, field

from minigpt4_video.media import Limits as DecodingLimits

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """The ceilings of a server."""

    request_bytes: int = 48 * MIB
    """Of one request that carries JSON, media in `data:` addresses among it."""
    arriving_bytes: int = 512 * MIB
    """Of all requests that are being received."""
    body_seconds: float = 60.0
    """For receiving a request, and until a client has taken a piece that it is sent; large ones have longer."""
    slowest: int = 64 * 1024
    """Bytes a second by which an upload, and a large piece of an answer, has longer than `body_seconds`."""
    head_seconds: float = 10.0
    """For receiving a request's head."""
    connections: int = 512
    media: int = 8
    """Videos and pictures of one request."""
    media_bytes: int = 1024 * MIB
    """Of one video that is uploaded, fetched or read from a folder."""
    frames: int = 128
    """Of one video."""
    decoding: DecodingLimits = field(default_factory=DecodingLimits)
    """Memory, seconds, duration and pixels of what is decoded."""
    messages: int = 256
    """Of one conversation."""
    text: int = 200_000
    """Characters of a conversation, its subtitles among them."""
    prompt_tokens: int | None = None
    """Of one prompt; None for the model's window."""
    answer_tokens: int = 1024
    """Of one answer; a request for longer ones gets this."""
    choices: int = 8
    """Answers to one request."""
    waiting: int = 64
    """Requests that are being answered or wait for it; the next one is refused."""
    seconds: float = 300.0
    """For one request, from its arrival to the end of its answer."""
    uploads_at_once: int = 4
    """Files that are being received; of those, one of several keys has at most half."""
    upload_seconds: float = 24 * 3600.0
    """After which an upload is deleted."""
    uploads_bytes: int = 20 * 1024 * MIB
    """Of all uploads."""
    drain_seconds: float = 30.0
    """For what is being answered when the server is told to stop."""
