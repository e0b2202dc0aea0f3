"""Where the file of a clip lies on this machine: on its disk, in a tar, or in an object store."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minigpt4_video.data.reading import tar_member
from minigpt4_video.errors import MediaError


@contextmanager
def local_file(path: str) -> Iterator[Path]:
    """A file of its own for what `path` names; what was made for that is deleted afterwards. Raises MediaError."""
    if (member := tar_member(path)) is None:
        yield Path(path)
        return
    archive, offset, size = member
    with tempfile.NamedTemporaryFile(prefix="minigpt4-video-") as aside:
        try:
            with open(archive, "rb") as file:
                file.seek(offset)
                left = size
                while left and (piece := file.read(min(left, 1 << 20))):
                    aside.write(piece)
                    left -= len(piece)
        except OSError as error:
            raise MediaError(f"{archive} cannot be read: {error.strerror or error}") from error
        if left:
            raise MediaError(f"{archive} ends within a file that it holds; copy or download it again")
        aside.flush()
        yield Path(aside.name)
