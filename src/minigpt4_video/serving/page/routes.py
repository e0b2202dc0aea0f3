"""The page's files, and what it asks of the server besides the public interface."""

import json
import mimetypes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from minigpt4_video.errors import MediaError, PlanError, UserError
from minigpt4_video.instructions import CAPTION_STYLE
from minigpt4_video.media import Cue, read_subtitles_guarded
from minigpt4_video.messages import Message, check_messages
from minigpt4_video.serving import schema
from minigpt4_video.serving.chatting import model_name
from minigpt4_video.serving.faults import Fault
from minigpt4_video.serving.films import Indexing, questions_of
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.page.views import Said, Seen, Views
from minigpt4_video.serving.service import Service
from minigpt4_video.serving.uploads import Uploads
from minigpt4_video.serving.watching import Wanted

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser lets the page do: use this server, and what it holds itself."""
SAFE = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

LONGEST_TITLE = 300
SUBTITLE_BYTES = 8 * 2**20
SUFFIXES = (".srt", ".vtt", ".ass", ".ssa", ".sub")


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Spoken(_Form):
    role: Literal["user", "assistant"]
    content: str


class Look(_Form):
    """A video and a conversation about it, as they would be sent to be answered."""

    file_id: str
    subtitles: Literal["auto", "off"] | list[schema.Cue] = "auto"
    num_frames: Annotated[int, Field(ge=1)] | None = None
    messages: list[Spoken] = []
    pictures: bool = True


class Answered(_Form):
    question: str
    answer: str
    confidence: Annotated[float, Field(le=0, ge=-1e4)]
    seconds: Annotated[float, Field(ge=0, le=1e6)]


class ReportOf(Look):
    title: Annotated[str, Field(max_length=LONGEST_TITLE)]
    turns: Annotated[list[Answered], Field(min_length=1)]


def add_page(app: FastAPI, service: Service, uploads: Uploads) -> None:
    """Serve the page at `/`, its files below `/page`, and its own requests below `/v1/page`, which need a key."""
    mimetypes.add_type("text/javascript", ".js")  # some machines say otherwise, and browsers refuse it then
    views = Views(service)
    router = APIRouter(include_in_schema=False)
    told = _settings(service, views)

    @router.get("/", response_class=FileResponse)
    async def index() -> Response:
        return FileResponse(STATIC / "index.html", headers=SAFE | {"Cache-Control": "no-cache"})

    @router.get("/v1/page/settings")
    async def settings() -> dict[str, Any]:
        return told

    @router.post("/v1/page/subtitles")
    async def subtitles(request: Request, name: str) -> dict[str, Any]:
        content = await request.body()
        with service.admitted():
            cues = await run_in_threadpool(_cues, content, name, service.limits)
        return {"cues": [cue._asdict() for cue in cues]}

    @router.post("/v1/page/footage")
    def footage(request: Request, look: Look) -> dict[str, Any]:
        path, wanted, messages = _opened(uploads, service.limits, request.scope["tenant"], look)
        with service.admitted(), _coded():
            seen = _see(service, uploads, request.scope["tenant"], look, wanted, messages)
            pictures = views.pictures(path, seen, wanted) if look.pictures else None
            told = views.footage(seen.footage, messages, pictures)
            return told | ({} if seen.indexed is None else {"indexed": seen.indexed})

    @router.post("/v1/page/report", response_class=HTMLResponse)
    def report(request: Request, look: ReportOf) -> Response:
        path, wanted, messages = _opened(uploads, service.limits, request.scope["tenant"], look)
        said = [Said(turn.question, turn.answer, turn.confidence, turn.seconds) for turn in look.turns]
        with service.admitted(), _coded():
            seen = _see(service, uploads, request.scope["tenant"], look, wanted, messages)
            html = views.report(seen, messages, views.pictures(path, seen, wanted), look.title, said)
        headers = SAFE | {"Content-Disposition": "attachment; filename=report.html"}
        return Response(html.encode("utf-8", "replace"), media_type="text/html; charset=utf-8", headers=headers)

    app.include_router(router)
    app.mount("/page", _Files(directory=STATIC))


class _Files(StaticFiles):
    """Asked for anew each time, so that a newer page is not mixed with an older one; unchanged files are not sent."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers.update({"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})
        return response


def _settings(service: Service, views: Views) -> dict[str, Any]:
    """What the page has to know of the server."""
    limits = service.limits
    return {
        "model": model_name(service),
        "captions": CAPTION_STYLE,
        "frames": {"most": views.most_frames},
        "limits": {
            "bytes": limits.media_bytes,
            "duration": limits.decoding.duration,
            "pixels": limits.decoding.pixels,
            "kept": limits.upload_seconds,
        },
        "examples": json.loads((STATIC / "examples" / "examples.json").read_bytes()),
    }


def _opened(uploads: Uploads, limits: Limits, tenant: str, look: Look) -> tuple[Path, Wanted, list[Message]]:
    """An upload, what is wanted of it, and the conversation. Raises Fault."""
    messages: list[Message] = [{"role": one.role, "content": one.content} for one in look.messages]
    letters = sum(len(one.content) for one in look.messages)
    letters += 0 if isinstance(look.subtitles, str) else sum(20 + len(cue.text) for cue in look.subtitles)
    if isinstance(look, ReportOf):
        letters += sum(len(turn.question) + len(turn.answer) for turn in look.turns)
    if letters > limits.text or len(messages) > limits.messages:
        raise Fault(400, f"There are more than the {limits.text} letters or {limits.messages} messages allowed.")
    if messages:
        try:
            check_messages(messages)
        except UserError as error:
            raise Fault(400, str(error), param="messages") from error
        if messages[0]["role"] != "user" or messages[-1]["role"] != "user":
            raise Fault(400, "The first and the last message must be by the user.", param="messages")
    subtitles = look.subtitles
    cues = subtitles if isinstance(subtitles, str) else [Cue(cue.start, cue.end, cue.text) for cue in subtitles]
    _, path = uploads.get(tenant, look.file_id)
    return path, Wanted(cues or "off", look.num_frames), messages


def _see(service: Service, uploads: Uploads, tenant: str, look: Look, wanted: Wanted, messages: list[Message]) -> Seen:
    """What the model sees of a video with a conversation. A long one begins to be indexed; until it is, and where
    nothing is asked yet, that is the whole."""
    known, path = uploads.get(tenant, look.file_id)
    footage = service.see(tenant, path, wanted, known.digest)
    if not service.films.wants(footage, wanted, None):
        return Seen(footage)
    try:
        film = service.films.open(tenant, path, known.digest, wanted, footage)
    except Indexing as error:
        return Seen(footage, indexed=error.making.share)
    if not messages:
        return Seen(footage, indexed=1.0)
    shown, evidence = service.films.seen(film, questions_of(messages))
    return Seen(shown, film, evidence, 1.0)


@contextmanager
def _coded() -> Iterator[None]:
    """Failures that the file or the question causes, with a code by which the page finds words in its language."""
    try:
        yield
    except MediaError as error:
        raise Fault(400, str(error), code="media") from error
    except PlanError as error:
        raise Fault(400, str(error), code="plan") from error
    except UserError as error:
        raise Fault(400, str(error)) from error


def _cues(content: bytes, name: str, limits: Limits) -> list[Cue]:
    """A subtitle file's cues, read in a limited child process; of the name only its ending matters. Raises Fault."""
    suffix = Path(name).suffix.lower()
    if len(content) > SUBTITLE_BYTES:
        raise Fault(
            413, f"The file has more than {SUBTITLE_BYTES >> 20} MB, so it is no subtitle file.", code="subtitles"
        )
    with tempfile.TemporaryDirectory(prefix="minigpt4-video-") as folder:
        path = Path(folder) / f"subtitles{suffix if suffix in SUFFIXES else '.srt'}"
        path.write_bytes(content)
        try:
            return read_subtitles_guarded(path, limits=limits.decoding)
        except MediaError as error:
            told = str(error).replace(str(path), "The file").replace(path.name, "The file")
            raise Fault(400, told, code="subtitles") from error
