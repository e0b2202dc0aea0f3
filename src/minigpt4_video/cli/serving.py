"""The verb that puts a model behind an address: serve."""

from pathlib import Path
from typing import Annotated

from typer import Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, quiet
from minigpt4_video.errors import UserError

GIB = 2**30


def serve(
    model: options.Model = "tiny",
    host: Annotated[str, Option(help="Address to listen on; others than this machine's own need a key.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        Option(
            envvar="MINIGPT4_VIDEO_API_KEY",
            help="A key that clients must send; may be given several times, or in the variable with spaces between.",
            show_default=False,
            show_envvar=True,
        ),
    ] = None,
    page: Annotated[bool, Option("--page", help="Serve a page for people too.")] = False,
    media_folder: Annotated[
        Path | None,
        Option(metavar="FOLDER", help="Folder whose files requests may name as file:///...", show_default=False),
    ] = None,
    media_host: Annotated[
        list[str] | None,
        Option(
            metavar="HOST",
            help="Host from which videos are fetched, as example.org or .example.org; may be given several times.",
            show_default=False,
        ),
    ] = None,
    uploads: Annotated[
        Path | None,
        Option(metavar="FOLDER", help="Where uploads are kept [default: in the user's data].", show_default=False),
    ] = None,
    waiting: Annotated[
        int, Option(min=1, help="Requests that may wait or be answered; more are told to come back.")
    ] = 64,
    frames: Annotated[int, Option(min=1, help="Most frames of a video that a request may ask for.")] = 128,
    memory: Annotated[float, Option(min=0.001, help="GiB for what the model keeps of videos while it runs.")] = 8.0,
    long: options.Long = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
) -> None:
    """Serve a model to OpenAI clients, and a page to people.

    \b
    minigpt4-video serve
    minigpt4-video serve --page --host 0.0.0.0 --api-key "$KEY"
    """
    quiet()
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError('serving needs more packages: pip install "minigpt4-video[serve]"') from error
    from minigpt4_video.inference import VideoChat
    from minigpt4_video.inference.store import find_store
    from minigpt4_video.serving.limits import Limits
    from minigpt4_video.serving.server import Serving
    from minigpt4_video.serving.server import serve as run

    serving = Serving(
        host=host,
        port=port,
        keys=api_key or (),
        uploads=uploads,
        media_folder=media_folder,
        media_hosts=tuple(media_host or ()),
        page=page,
        memory=int(memory * GIB),
        long=long,
        limits=Limits(waiting=waiting, frames=frames),
    )
    serving.check()
    chat = VideoChat.from_pretrained(model, device, dtype, store=find_store(), quantize=quantize)

    def listening(port: int) -> None:
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        if page:
            note(f"a page for people: {address}")
        note(f"serving {chat.name} at {address}/v1 (end with Ctrl-C)")

    run(chat, serving, listening)
