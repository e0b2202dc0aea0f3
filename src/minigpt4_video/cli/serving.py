"""The verb that puts a model behind an address: serve."""

from typing import Annotated

from typer import Option

from minigpt4_video.cli import options
from minigpt4_video.cli.output import note, quiet
from minigpt4_video.errors import UserError


def serve(
    model: options.Model = "tiny",
    host: Annotated[str, Option(help="Address to listen on; others than this machine's own need a key.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        Option(
            envvar="MINIGPT4_VIDEO_API_KEY",
            help="A key that clients must send; may be given several times.",
            show_default=False,
        ),
    ] = None,
    page: Annotated[bool, Option("--page", help="Serve a page for people too.")] = False,
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
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError('serving needs more packages: pip install "minigpt4-video[serve]"') from error
    from minigpt4_video.inference import VideoChat
    from minigpt4_video.inference.store import find_store
    from minigpt4_video.serving.server import check_exposure
    from minigpt4_video.serving.server import serve as run

    check_exposure(host, api_key or [])
    chat = VideoChat.from_pretrained(model, device, dtype, store=find_store(), quantize=quantize)

    def listening(port: int) -> None:
        note(f"serving {chat.name} at http://{f'[{host}]' if ':' in host else host}:{port}/v1 (end with Ctrl-C)")

    run(chat, host=host, port=port, keys=api_key or [], page=page, listening=listening)
