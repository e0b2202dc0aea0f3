"""Files that are either whole or not there."""

import os
import tempfile
from pathlib import Path

from minigpt4_video.errors import UserError


def check_writable(path: Path) -> None:
    """Refuse a place that cannot take a file, before the work whose result would go there. Raises UserError."""
    folder = path.absolute().parent
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file to write")
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: no permission to write in {folder}")


def write_whole(path: Path, content: bytes) -> None:
    """Write aside and rename, so that an interruption leaves the old file or none, never half of one."""
    check_writable(path)
    handle, aside = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes files for the owner alone; the finished file has the rights any new file would have.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(aside, 0o666 & ~mask)
        os.replace(aside, path)
    except BaseException as error:
        Path(aside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
        raise
