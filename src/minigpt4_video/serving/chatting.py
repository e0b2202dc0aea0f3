"""A chat request from its body to its answer: media to frames, a prompt to the scheduler, words to the client."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from starlette.responses import JSONResponse, Response, StreamingResponse

from minigpt4_video.errors import UserError
from minigpt4_video.inference.answer import Answer, Evidence
from minigpt4_video.inference.footage import Footage
from minigpt4_video.media import Cue
from minigpt4_video.messages import check_messages
from minigpt4_video.serving import answers, schema
from minigpt4_video.serving.faults import Fault, our_fault
from minigpt4_video.serving.films import Indexing, counted, questions_of
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.scheduler import Asked, Closing, Said
from minigpt4_video.serving.service import Sampling, Service, closing, still_indexing, too_late
from minigpt4_video.serving.sources import Source, Sources
from minigpt4_video.serving.watching import Subtitles, Wanted, written

OPENERS = 16
"""Requests whose media are being opened at the same time; most of them wait for a child process."""
ROLE = {"developer": "system"}


class Prepared(NamedTuple):
    """A request that can be answered."""

    asked: Asked | None
    """None where the answer is there already."""
    evidence: tuple[Evidence, ...] = ()
    answer: Answer | None = None

    def more(self) -> dict[str, Any]:
        """What a reply says beside OpenAI's fields: the parts of long videos that it rests on."""
        return {"evidence": [one._asdict() for one in self.evidence]} if self.evidence else {}


class Chatting:
    """Answers chat requests by a service."""

    def __init__(self, service: Service, sources: Sources) -> None:
        self._service = service
        self._sources = sources
        self._openers = ThreadPoolExecutor(OPENERS, "open")

    async def answer(self, tenant: str, request: schema.ChatRequest) -> Response:
        """The answer, or the beginning of a stream. Raises Fault and UserError."""
        check_size(request, self._service.limits)
        with ExitStack() as held:
            begun = monotonic()
            held.enter_context(self._service.admitted())
            prepared = await self._prepared(tenant, request)
            if prepared.answer is not None:
                return _told_at_once(
                    answers.Reply(model_name(self._service), prepared.more()), prepared.answer, request
                )
            exchange = _Exchange(self._service, request, prepared, begun)
            held.callback(exchange.close)
            if request.stream:
                return _Events(exchange.events(), held.pop_all(), self._service.limits.seconds)
            return JSONResponse(await exchange.whole())

    def close(self) -> None:
        self._openers.shutdown(wait=False, cancel_futures=True)

    async def _prepared(self, tenant: str, request: schema.ChatRequest) -> Prepared:
        """A request with its media read; where a long video must be indexed first, when it is. Raises Fault."""
        loop = asyncio.get_running_loop()
        making = None
        try:
            async with asyncio.timeout(self._service.limits.seconds):
                while True:
                    try:
                        return await loop.run_in_executor(self._openers, self._prepare, tenant, request)
                    except Indexing as error:
                        making = error.making
                    await asyncio.shield(asyncio.wrap_future(making.done))
        except TimeoutError as error:
            raise (still_indexing(making.share) if making else too_late()) from error
        except Closing as error:
            raise closing() from error

    def _prepare(self, tenant: str, request: schema.ChatRequest) -> Prepared:
        most = request.max_completion_tokens or request.max_tokens
        with tempfile.TemporaryDirectory(prefix="minigpt4-video-") as folder:
            opened = _Opened(self._service, self._sources, tenant, request, Path(folder))
            messages = [
                {"role": ROLE.get(message.role, message.role), "content": opened.parts(message, place)}
                for place, message in enumerate(request.messages)
            ]
            if opened.counted is not None:
                return Prepared(None, opened.counted.evidence, opened.counted)
        sampling = Sampling(
            most,
            request.temperature or 0.0,
            request.top_p,
            request.seed,
            request.n or 1,
            request.top_logprobs or 0,
        )
        return Prepared(self._service.prepare(tenant, merged(messages), sampling), tuple(opened.evidence))


def check_size(request: schema.ChatRequest, limits: Limits) -> None:
    """Raise where a conversation is none, or more than the limits allow; nothing of it has been opened."""
    if len(request.messages) > limits.messages:
        raise Fault(400, f"The conversation has more than the {limits.messages} messages allowed.", param="messages")
    if (request.n or 1) > limits.choices:
        raise Fault(400, f"n is more than the {limits.choices} answers allowed.", param="n")
    if request.top_logprobs and not request.logprobs:
        raise Fault(400, "top_logprobs needs logprobs.", param="top_logprobs")
    if (frames := request.num_frames) is not None and frames > limits.frames:
        raise Fault(400, f"num_frames is more than the {limits.frames} allowed.", param="num_frames")
    form, media, letters = [], 0, _letters(request.subtitles)
    for message in request.messages:
        content = []
        for part in _parts(message):
            if isinstance(part, schema.Text):
                letters += len(part.text)
                content.append({"type": "text", "text": part.text})
            else:
                media += 1
                content.append({"type": "image" if isinstance(part, schema.Image) else "video", "path": "media"})
                if isinstance(part, schema.Video):
                    letters += _letters(part.video_url.subtitles)
        form.append({"role": ROLE.get(message.role, message.role), "content": content})
    if media > limits.media:
        raise Fault(400, f"There are more than the {limits.media} videos and pictures allowed.", param="messages")
    if letters > limits.text:
        raise Fault(400, f"There are more than the {limits.text} letters allowed.", param="messages")
    try:
        check_messages(merged(form))
    except UserError as error:
        raise Fault(400, str(error), param="messages") from error
    if form[-1]["role"] != "user":
        raise Fault(400, "The last message must be by the user.", param="messages")


def merged(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages in a row by the same role as one: clients send them, and the model knows turns."""
    found: list[dict[str, Any]] = []
    for message in messages:
        if found and found[-1]["role"] == message["role"]:
            found[-1] = {"role": message["role"], "content": [*found[-1]["content"], *message["content"]]}
        else:
            found.append(message)
    return found


class _Opened:
    """The parts of one request's messages with frames in the place of addresses."""

    def __init__(
        self, service: Service, sources: Sources, tenant: str, request: schema.ChatRequest, folder: Path
    ) -> None:
        self._service = service
        self._sources = sources
        self._tenant = tenant
        self._request = request
        self._folder = folder
        self._said = questions_of(
            [{"role": one.role, "content": [_words(part) for part in _parts(one)]} for one in request.messages]
        )
        self.evidence: list[Evidence] = []
        """Of long videos: which parts of them are shown."""
        self.counted: Answer | None = None
        """The answer, where the only thing asked is how often something happens in a long video."""

    def parts(self, message: schema.Message, place: int) -> list[dict[str, Any]]:
        return [self._part(part, f"messages.{place}.content.{number}") for number, part in enumerate(_parts(message))]

    def _part(self, part: schema.Part, param: str) -> dict[str, Any]:
        if isinstance(part, schema.Text):
            return {"type": "text", "text": part.text}
        if isinstance(part, schema.Image):
            picture = self._watch(part.image_url.url, Wanted("off", 1), param)
            return {"type": "image", "image": picture.clip.frames[0]}
        video = part.video_url if isinstance(part, schema.Video) else schema.VideoSource(url=part.file.file_id)
        if video.end is not None and video.end <= (video.start or 0):
            raise Fault(400, "The end is not after the start.", param=param)
        frames = video.num_frames or self._request.num_frames
        subtitles = self._subtitles(self._request.subtitles if video.subtitles is None else video.subtitles)
        wanted = Wanted(subtitles, frames, video.start, video.end)
        footage = self._watch(video.url, wanted, param, self._clips)
        return {"type": "video", "frames": footage.clip, "subtitles": footage.texts, "num_frames": frames}

    def _watch(
        self, url: str, wanted: Wanted, param: str, further: Callable[[Footage, Source, Wanted], Footage] | None = None
    ) -> Footage:
        with self._sources.opened(self._tenant, url, param) as source:
            try:
                footage = self._service.see(self._tenant, source.path, wanted, source.digest)
                return further(footage, source, wanted) if further else footage
            except Fault:
                raise
            except UserError as error:
                raise Fault(400, str(error), param=param) from error

    def _clips(self, footage: Footage, source: Source, wanted: Wanted) -> Footage:
        """Of a long video the clips that the conversation is about, else what was seen of it."""
        films, request = self._service.films, self._request
        if not films.wants(footage, wanted, request.long):
            return footage
        video = films.open(self._tenant, source.path, source.digest, wanted, footage)
        if len(request.messages) == 1 and (request.n or 1) == 1:
            most = request.max_completion_tokens or request.max_tokens
            temperature = request.temperature or 0.0
            self.counted = counted(
                video, self._said[-1], max_new_tokens=most, temperature=temperature, seed=request.seed
            )
            if self.counted is not None:
                return footage
        shown, evidence = films.seen(video, self._said)
        self.evidence += evidence
        return shown

    def _subtitles(self, given: str | list[schema.Cue] | None) -> Subtitles:
        if given is None or given == "auto":
            return "auto"
        if given == "off" or not given:
            return "off"
        if isinstance(given, str):
            return written(given, self._folder)
        return [Cue(cue.start, cue.end, cue.text) for cue in given]


def _parts(message: schema.Message) -> list[schema.Part]:
    content = message.content
    return [schema.Text(type="text", text=content)] if isinstance(content, str) else content


def _words(part: schema.Part) -> dict[str, Any]:
    return {"type": "text", "text": part.text} if isinstance(part, schema.Text) else {"type": "video"}


def _letters(subtitles: str | list[schema.Cue] | None) -> int:
    if subtitles is None or isinstance(subtitles, str):
        return len(subtitles or "")
    return sum(20 + len(cue.text) for cue in subtitles)  # a cue without words is work too


class _Exchange:
    """One prompt and its answers on their way to the client."""

    def __init__(self, service: Service, request: schema.ChatRequest, prepared: Prepared, begun: float) -> None:
        asked = prepared.asked
        assert asked is not None
        loop = asyncio.get_running_loop()
        self._service = service
        self._request = request
        self._begun = begun
        self._said: asyncio.Queue[Said | Exception] = asyncio.Queue()
        self._prompt = len(asked.ids)

        def tell(said: Said | Exception) -> None:
            loop.call_soon_threadsafe(self._said.put_nowait, said)

        self._ticket = service.submit(asked, tell)
        stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
        self._choices = [
            answers.Choice(index, stops, service.chat.processor.tokenizer, bool(request.logprobs))
            for index in range(request.n or 1)
        ]
        self._reply = answers.Reply(model_name(service), prepared.more())

    def close(self) -> None:
        self._service.scheduler.cut(self._ticket)

    async def whole(self) -> dict[str, Any]:
        async for _ in self._follow():
            pass
        made = [answers.whole_choice(choice, self._ticket.utterances[choice.index]) for choice in self._choices]
        return self._reply.whole(made, self._usage())

    async def events(self) -> AsyncIterator[bytes]:
        """The chunks of the stream; what goes wrong is one of them."""
        wanted = self._request.stream_options is not None and self._request.stream_options.include_usage
        more: dict[str, Any] = {"usage": None} if wanted else {}
        for choice in self._choices:
            delta = answers.choice_delta(choice.index, {"role": "assistant", "content": ""})
            yield self._reply.chunk([delta], **more)
        try:
            async for choice, new in self._follow():
                logprobs = choice.logprobs(self._ticket.utterances[choice.index])
                if new or (logprobs and logprobs["content"]):
                    yield self._reply.chunk([answers.choice_delta(choice.index, {"content": new}, logprobs)], **more)
                if choice.finish:
                    yield self._reply.chunk([answers.choice_delta(choice.index, {}, None, choice.finish)], **more)
            if wanted:
                yield self._reply.chunk([], usage=self._usage())
        except Exception as error:
            fault = error if isinstance(error, Fault) else our_fault()
            yield answers.event(fault.body())
        yield answers.END

    async def _follow(self) -> AsyncIterator[tuple[answers.Choice, str]]:
        """Each answer that has gone on, with what is new. Raises Fault."""
        deadline = self._begun + self._service.limits.seconds
        first = True
        while any(choice.finish is None for choice in self._choices):
            try:
                said = await asyncio.wait_for(self._said.get(), max(0.0, deadline - monotonic()))
            except TimeoutError as error:
                raise too_late() from error
            if isinstance(said, Exception):
                raise _told(said)
            if first:
                self._service.metrics.first_token.observe(monotonic() - self._begun)
                first = False
            choice = self._choices[said.answer]
            if choice.finish:
                continue
            new = choice.take(said, self._ticket.utterances[said.answer])
            if choice.finish and not said.finished:
                self._service.scheduler.cut(self._ticket, said.answer)
            yield choice, new
        self._service.metrics.whole.observe(monotonic() - self._begun)

    def _usage(self) -> dict[str, Any]:
        return answers.usage_of(self._prompt, self._ticket.cached, self._choices)


def _told_at_once(reply: answers.Reply, answer: Answer, request: schema.ChatRequest) -> Response:
    """A reply whose answer is there already, in the form that was asked for."""
    usage = {"prompt_tokens": 0, "completion_tokens": answer.tokens, "total_tokens": answer.tokens}
    if not request.stream:
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return JSONResponse(reply.whole([choice], usage))
    deltas = [{"role": "assistant", "content": ""}, {"content": answer.text}]
    chunks = [reply.chunk([answers.choice_delta(0, delta)]) for delta in deltas]
    chunks.append(reply.chunk([answers.choice_delta(0, {}, None, "stop")]))
    if request.stream_options is not None and request.stream_options.include_usage:
        chunks.append(reply.chunk([], usage=usage))
    headers = {"Cache-Control": "no-store"}
    return Response(b"".join([*chunks, answers.END]), media_type="text/event-stream", headers=headers)


def _told(error: Exception) -> Fault:
    if isinstance(error, Fault):
        return error
    if isinstance(error, Closing):
        return closing()
    return Fault(400, str(error)) if isinstance(error, UserError) else our_fault()


class _Events(StreamingResponse):
    """A stream of events; what it holds is let go at its end, however that comes about."""

    def __init__(self, events: AsyncIterator[bytes], held: ExitStack, seconds: float) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self._held = held
        self._seconds = seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._held:
            async with asyncio.timeout(self._seconds):  # for a client that does not read
                await unless_gone(receive, super().stream_response(send))


async def unless_gone(receive: Callable[[], Awaitable[MutableMapping[str, Any]]], work: Awaitable[Any]) -> Any:
    """The result of some work; it ends when the client leaves, and the result is None."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


def model_name(service: Service) -> str:
    """The model's name for clients: of a folder the last part, not where it is."""
    return Path(service.chat.name).name or service.chat.name
