"""Refusals in OpenAI's form."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from minigpt4_video.errors import UserError

INVALID = "invalid_request_error"


class Fault(UserError, HTTPException):
    """A request that is refused: what the client is told of it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        HTTPException.__init__(self, status, message)
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status_code == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status_code, headers)


def refuse_in_openai_form(app: FastAPI) -> None:
    """Answer every failure of `app` with an error object; none tells a path, an address of memory or a trace."""

    @app.exception_handler(Fault)
    async def fault(request: Request, error: Fault) -> JSONResponse:
        return error.response()

    @app.exception_handler(UserError)
    async def user_error(request: Request, error: UserError) -> JSONResponse:
        return Fault(400, str(error)).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return described(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        kind = INVALID if error.status_code < 500 else "server_error"
        return Fault(error.status_code, str(error.detail), kind=kind).response()

    @app.exception_handler(Exception)
    async def own(request: Request, error: Exception) -> JSONResponse:
        return our_fault().response()


def our_fault() -> Fault:
    return Fault(500, "The server made a mistake; its log tells more.", kind="server_error")


def described(errors: Any) -> Fault:
    """What is wrong with a request's form, without the values that it holds, which may be anything."""
    first = errors[0]
    steps = map(str, first["loc"])
    place = ".".join(step for step in steps if step != "body" and not step.startswith("("))
    param = place.encode("ascii", "replace").decode()[:100] or None
    message = str(first["msg"]).encode("utf-8", "replace").decode()[:300]
    return Fault(400, f"{param}: {message}" if param else message, param=param)
