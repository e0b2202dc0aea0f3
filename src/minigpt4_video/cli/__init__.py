"""The command line: parses, calls, prints. Each verb imports what it needs when it runs, so that help is quick."""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from minigpt4_video import __version__
from minigpt4_video.cli import (
    asking,
    datasets,
    evaluating,
    health,
    indexing,
    inspecting,
    labelling,
    serving,
    storing,
    training,
    weights,
    worlds,
)
from minigpt4_video.cli.output import DEBUG, note
from minigpt4_video.errors import UserError

DONE, OUR_FAULT, INPUT_AT_FAULT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="minigpt4-video",
    help="Ask questions about your own videos.",
    epilog="Exit status: 0 done, 2 the input or the usage is at fault, 130 interrupted, 1 our own fault.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command()(asking.ask)
app.command()(asking.chat)
app.command()(asking.caption)
app.command()(inspecting.inspect)
app.command()(indexing.index)
app.command()(weights.models)
app.command()(weights.convert)
app.command()(weights.export)
app.command()(training.train)
app.command()(serving.serve)
app.command()(evaluating.evaluate)
app.command()(labelling.label)
app.add_typer(datasets.app)
app.add_typer(worlds.app)
app.add_typer(storing.app)
app.command()(health.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Ask questions about your own videos."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status; failures become one line on stderr."""
    given = [_as_path(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what no encoding can say
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    try:
        status = app(given or ["--help"], prog_name="minigpt4-video", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status if isinstance(status, int) else DONE
    except (KeyboardInterrupt, typer.Abort):
        note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):
            return _reader_left()
        return stop.code if isinstance(stop.code, int) else OUR_FAULT
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        return _tell(error)


def _tell(error: Exception) -> int:
    """One line on stderr, and the status that belongs to it."""
    if isinstance(error, UserError):
        note(f"error: {error}")
        return INPUT_AT_FAULT
    if isinstance(error, TyperException):
        note(f"error: {error.format_message()} (minigpt4-video --help tells more)")
        return INPUT_AT_FAULT
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _reader_left()
        note(f"error: there is no room for {error.filename or 'what is written'}; free some, or write elsewhere")
        return INPUT_AT_FAULT
    if isinstance(error, OSError) and error.filename is not None:
        note(f"error: {error.filename} cannot be used: {error.strerror}")
        return INPUT_AT_FAULT
    note(f"internal fault: {type(error).__name__}: {error} (set {DEBUG}=1 to see where)")
    return OUR_FAULT


def _as_path(argument: str) -> str:
    """A file whose name begins with "-" would be taken for an option: `-clip.mp4` becomes `./-clip.mp4`."""
    is_file = argument.startswith("-") and "." in argument and Path(argument).is_file()
    return f"./{argument}" if is_file else argument


def _reader_left() -> int:
    """Whoever read our output (`| head`) has seen enough, or it has no room; what is still buffered must not fail on
    the way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return DONE
