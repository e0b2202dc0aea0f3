"""The server's interface: OpenAI's chat completions over one model."""

import time
import uuid
from typing import Any

from fastapi import Depends, FastAPI, Request

from minigpt4_video import __version__
from minigpt4_video.serving.faults import Fault, refuse_in_openai_form
from minigpt4_video.serving.keys import Keys
from minigpt4_video.serving.schema import ChatRequest
from minigpt4_video.serving.service import Service


def create_app(service: Service, *, keys: Keys | None = None) -> FastAPI:
    """The interface over `service`. A page is mounted by whoever calls this (`serving/server.py`)."""
    keys = keys or Keys()
    app = FastAPI(title="minigpt4-video", version=__version__, docs_url=None, redoc_url=None)
    refuse_in_openai_form(app)
    begun = int(time.time())

    def tenant(request: Request) -> str:
        who = keys.who(request.headers.get("Authorization"))
        if who is None:
            raise Fault(401, "The API key is missing or wrong; send it as a bearer token.", code="invalid_api_key")
        return who

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models", dependencies=[Depends(tenant)])
    def models() -> dict[str, Any]:
        one = {"id": service.chat.name, "object": "model", "created": begun, "owned_by": "minigpt4-video"}
        return {"object": "list", "data": [one]}

    @app.post("/v1/chat/completions", dependencies=[Depends(tenant)])
    def completions(request: ChatRequest) -> dict[str, Any]:
        messages = []
        for message in request.messages:
            parts = message.content
            content = parts if isinstance(parts, str) else [part.model_dump() for part in parts]
            messages.append({"role": message.role, "content": content})
        answer = service.chat.answer(
            messages, max_new_tokens=request.max_tokens, temperature=request.temperature or 0.0, seed=request.seed
        )
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": service.chat.name,
            "choices": [choice],
        }

    return app
