"""The verbs about what is kept on disk: store info, store prune, store clear."""

from typing import Annotated

from typer import Option, Typer

from minigpt4_video.cli import options
from minigpt4_video.cli.output import quiet, say, say_json
from minigpt4_video.errors import UserError

GIB = 2**30

app = Typer(name="store", help="Look at, shorten or empty what is kept of videos on disk.", no_args_is_help=True)

Folder = Annotated[
    str | None,
    Option(
        "--store",
        metavar="FOLDER",
        help="Folder of the store [default: MINIGPT4_VIDEO_STORE, else in the user's cache].",
        show_default=False,
    ),
]


@app.command()
def info(store: Folder = None, json: options.Json = False) -> None:
    """Tell where the store is and what it holds.

    \b
    minigpt4-video store info
    """
    quiet()
    from minigpt4_video.inference.store import find_store

    found = find_store(store)
    if found is None:
        raise UserError('the store is off; name a folder with --store, or in MINIGPT4_VIDEO_STORE instead of "off"')
    held = found.held()
    if json:
        kinds = {kind: one._asdict() for kind, one in held.items()}
        say_json({"folder": str(found.folder), "limit": found.limit, "held": kinds})
        return
    say(f"{found.folder} (at most {found.limit / GIB:.1f} GiB)")
    for kind, one in held.items():
        say(f"    {kind:10} {one.entries:6} {_size(one.bytes)}")


@app.command()
def prune(
    to: Annotated[float, Option(min=0.0, metavar="GIB", help="What the rest may take.", show_default=False)],
    store: Folder = None,
) -> None:
    """Remove the longest unused entries until the rest takes no more than it may.

    \b
    minigpt4-video store prune --to 5
    """
    quiet()
    from minigpt4_video.inference.store import find_store

    found = find_store(store)
    if found is None:
        raise UserError("the store is off; there is nothing to prune")
    gone = found.prune(int(to * GIB))
    say(f"removed {gone.entries} entries, {_size(gone.bytes)}")


@app.command()
def clear(store: Folder = None) -> None:
    """Remove all entries.

    \b
    minigpt4-video store clear
    """
    quiet()
    from minigpt4_video.inference.store import find_store

    found = find_store(store)
    if found is None:
        raise UserError("the store is off; there is nothing to clear")
    gone = found.clear()
    say(f"removed {gone.entries} entries, {_size(gone.bytes)}")


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"
