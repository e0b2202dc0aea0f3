"""The server's interface: OpenAI's models, files and chat completions over one model."""

import asyncio
import time
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, PlainTextResponse, Response
from pydantic import BaseModel

from minigpt4_video import __version__
from minigpt4_video.serving.chatting import Chatting, model_name, unless_gone
from minigpt4_video.serving.faults import Fault, refuse_in_openai_form
from minigpt4_video.serving.gate import Gate
from minigpt4_video.serving.keys import Keys
from minigpt4_video.serving.schema import ChatRequest
from minigpt4_video.serving.service import Service
from minigpt4_video.serving.sources import Sources
from minigpt4_video.serving.uploads import Upload, Uploads

CLEARED_EVERY = 600.0
"""Seconds after which expired uploads are looked for again."""
LONGEST_NAME = 200
CLIENT_LEFT = 499


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """What every refusal is."""

    error: ErrorObject


def create_app(service: Service, sources: Sources, uploads: Uploads, *, keys: Keys | None = None) -> FastAPI:
    """The interface over `service`. A page is mounted by whoever calls this (`serving/server.py`)."""
    keys = keys or Keys()
    chatting = Chatting(service, sources)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        clearing = asyncio.create_task(_clear_away(uploads))
        try:
            yield
        finally:
            clearing.cancel()
            with suppress(asyncio.CancelledError):
                await clearing
            chatting.close()
            await run_in_threadpool(service.close)

    app = FastAPI(
        title="minigpt4-video",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={"4XX": {"model": Error}, "5XX": {"model": Error}},
    )
    refuse_in_openai_form(app)
    app.add_middleware(Gate, keys=keys, limits=service.limits, metrics=service.metrics)
    name = model_name(service)
    model = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "minigpt4-video"}

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Whether it takes requests."""
        if not service.scheduler.alive:
            raise Fault(503, "The server is not ready.", kind="server_error")
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{model_id:path}")
    async def one_model(model_id: str) -> dict[str, Any]:
        if model_id != name:
            raise _no_model()
        return model

    @app.post("/v1/chat/completions")
    async def completions(request: Request, asked: ChatRequest) -> Response:
        """Answer a conversation about videos, pictures, or neither; with `stream`, as server-sent events."""
        if asked.model not in ("", name):
            raise _no_model()
        answered = await unless_gone(request.receive, chatting.answer(request.scope["tenant"], asked))
        return answered if isinstance(answered, Response) else Response(status_code=CLIENT_LEFT)

    @app.post("/v1/files")
    async def upload(
        request: Request,
        file: Annotated[UploadFile, File()],
        purpose: Annotated[str, Form(max_length=64)] = "user_data",
        expires_after: Annotated[int | None, Form(alias="expires_after[seconds]", ge=1)] = None,
    ) -> dict[str, Any]:
        """Keep a video, a picture or a subtitle file for a while, to be named by its id."""
        kept = await run_in_threadpool(
            uploads.add, request.scope["tenant"], _plain(file.filename), _plain(purpose), file.file, expires_after
        )
        return _file_object(kept)

    @app.get("/v1/files")
    async def files(request: Request) -> dict[str, Any]:
        found = await run_in_threadpool(uploads.all, request.scope["tenant"])
        data = [_file_object(one) for one in found]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return {"object": "list", "data": data, "has_more": False} | ends

    @app.get("/v1/files/{file_id}")
    async def one_file(request: Request, file_id: str) -> dict[str, Any]:
        return _file_object(uploads.get(request.scope["tenant"], file_id)[0])

    @app.get("/v1/files/{file_id}/content", response_class=FileResponse)
    async def content(request: Request, file_id: str) -> Response:
        _, path = uploads.get(request.scope["tenant"], file_id)
        return FileResponse(path, media_type="application/octet-stream", filename=file_id)

    @app.delete("/v1/files/{file_id}")
    async def delete(request: Request, file_id: str) -> dict[str, Any]:
        uploads.delete(request.scope["tenant"], file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    return app


def _no_model() -> Fault:
    return Fault(404, "There is no such model; /v1/models tells its name.", param="model", code="model_not_found")


def _file_object(upload: Upload) -> dict[str, Any]:
    known = {name: value for name, value in asdict(upload).items() if name != "digest"}
    return known | {"object": "file", "status": "processed"}


def _plain(name: str | None) -> str:
    """A name as it can stand anywhere: no path, nothing that steers a terminal or turns the writing."""
    last = (name or "file").replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(letter for letter in last if unicodedata.category(letter)[0] != "C")
    return shown[:LONGEST_NAME] or "file"


async def _clear_away(uploads: Uploads) -> None:
    while True:
        await asyncio.sleep(CLEARED_EVERY)
        await run_in_threadpool(uploads.clear_away)
