"""Videos and pictures of a training run, read once: sampled frames, or what the frozen tower sees in them, on disk.

The projection is trained, so what is kept of the tower is what goes into it.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import minigpt4_video.model
from minigpt4_video.data.reading import read_picture
from minigpt4_video.errors import MediaError
from minigpt4_video.inference.store import (
    Store,
    clip_parts,
    file_digest,
    key,
    module_digest,
    source_digest,
    stored_clip,
)
from minigpt4_video.media import Clip, read_clip
from minigpt4_video.model.modeling import MiniGPT4VideoModel

Keep = Literal["features", "frames", "nothing"]

ENCODED_AT_ONCE = 32
"""Frames in one pass of the frozen tower: more are hardly quicker, and take more memory."""
WORTH = 0.5
"""Features are kept where reading them takes at most this share of the time in which they are computed."""


@dataclass(frozen=True)
class Medium:
    """A video or picture as training takes it: exactly one of `frames` and `features`."""

    count: int
    frames: torch.Tensor | None = None
    """uint8 (frames, size, size, 3)."""
    features: torch.Tensor | None = None
    """(frames, tokens_per_frame, merge_size * vision), as `image_features` takes them."""
    key: str | None = None
    """Under which its features are to be kept."""
    times: tuple[float, ...] = ()
    duration: float = 0.0


class Reader:
    """Reads what records show, for `data.reading.shown`, and hands on frame numbers in the place of frames.

    The planner then chooses among numbers, and what was chosen is fetched from `media`. Frames are numbered through
    all that one `Reader` reads.
    """

    def __init__(self, store: Store | None, keep: Keep, tower: str = "") -> None:
        """`tower` is the digest of the tower and of how it is called; it names features."""
        self.store = store if keep != "nothing" else None
        self.keep = keep
        self.tower = tower
        self.media: list[Medium] = []
        self._count = 0

    def clip(self, path: str, frames: int, **options: Any) -> Clip:
        if self.store is None or self.keep != "features":
            read = read_clip if self.store is None else partial(stored_clip, self.store, read_clip)
            clip = read(Path(path), frames, **options)
            return replace(clip, frames=self._numbered(Medium(len(clip.frames), torch.from_numpy(clip.frames))))
        name = key("features", self.tower, _parts(path, frames, options))
        kept = self.store.get(name)
        if kept is not None:
            numbers = self._numbered(Medium(len(kept["features"]), features=kept["features"]))
            return Clip(numbers, kept["times"].numpy(), float(kept["duration"]))
        # Frames are kept as well, so that another tower, or a run that trains it, need not decode.
        clip = stored_clip(self.store, read_clip, Path(path), frames, **options)
        times = tuple(float(moment) for moment in clip.times)
        medium = Medium(len(times), torch.from_numpy(clip.frames), key=name, times=times, duration=clip.duration)
        return replace(clip, frames=self._numbered(medium))

    def picture(self, path: str, size: int, content: bytes | None) -> Any:
        name = None
        if self.store is not None and self.keep == "features":
            digest = _digest(path) if content is None else sha256(content).hexdigest()
            name = key("features", self.tower, [digest, size, "picture"])
            if (kept := self.store.get(name)) is not None:
                return self._numbered(Medium(1, features=kept["features"]))[0]
        frames = torch.from_numpy(read_picture(path, size, content)[None].copy())
        return self._numbered(Medium(1, frames, key=name))[0]

    def _numbered(self, medium: Medium) -> Any:
        self.media.append(medium)
        numbers = np.arange(self._count, self._count + medium.count, dtype=np.int64)
        self._count += medium.count
        return numbers[:, None, None, None]


def _parts(path: str, frames: int, options: dict[str, Any]) -> list[Any]:
    return clip_parts(_digest(path), frames, options)


def _digest(path: str) -> str:
    """Raises MediaError."""
    try:
        status = Path(path).stat()
        return _state_digest(path, status.st_size, status.st_mtime_ns, status.st_ino)
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=2**16)
def _state_digest(path: str, *state: int) -> str:
    """Of a file's content, once for each state of it in a process."""
    return file_digest(Path(path))


def tower_digest(model: MiniGPT4VideoModel, autocast: str) -> str:
    """Of all that determines features beside the pictures: weights, number type and code."""
    tower = model.vision_tower
    code = source_digest(Path(minigpt4_video.model.__file__).parent)
    made = sha256(f"{module_digest(tower)} {tower.dtype} {autocast} {code} {torch.__version__}".encode())
    return made.hexdigest()


def keep_features(store: Store, medium: Medium, features: torch.Tensor) -> None:
    """Put what the tower saw in a medium where the next reader finds it."""
    assert medium.key is not None
    times = torch.tensor(medium.times, dtype=torch.float64)
    duration = torch.tensor(medium.duration, dtype=torch.float64)
    store.put(medium.key, {"features": features, "times": times, "duration": duration})


def normalised(frames: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    """Frames uint8 (frames, size, size, 3) to what `processor.pixels` makes of them, on their own device."""
    pixels = frames.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255
    shape = (1, 3, 1, 1)
    return (pixels - torch.tensor(mean, device=frames.device).view(shape)) / torch.tensor(
        std, device=frames.device
    ).view(shape)


@torch.no_grad()  # type: ignore[untyped-decorator]
def encoded(model: MiniGPT4VideoModel, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels (frames, 3, size, size) through the frozen tower, a few at a time."""
    return torch.cat([model.get_merged_features(some) for some in pixels.split(ENCODED_AT_ONCE)])


@dataclass(frozen=True)
class Choice:
    keep: Keep
    reason: str


def choose(
    encode: Callable[[], torch.Tensor], store: Store, items: int, frame_bytes: int, wanted: str = "auto"
) -> Choice:
    """What pays on this machine: features where reading them beats computing them and they fit the disk, else frames
    where those fit, else nothing.

    `encode()` computes the features of one item of `items`; `frame_bytes` are those of its sampled frames.
    """
    if wanted != "auto":
        return Choice(wanted, "the recipe says so")  # type: ignore[arg-type]
    encode()
    started = time.perf_counter()
    features = encode()
    if features.is_cuda:
        torch.cuda.synchronize()
    computing = time.perf_counter() - started
    name = key("features", "how quick this disk is")
    store.put(name, {"features": features})
    started = time.perf_counter()
    kept = store.get(name)
    reading = time.perf_counter() - started
    room = min(store.limit, shutil.disk_usage(store.folder if store.folder.exists() else store.folder.parent).free // 2)
    size = items * features.nbytes
    told = f"{computing:.3g} s to encode one, {reading:.3g} s to read it, {size / 2**30:.3g} GiB for all"
    if kept is not None and reading <= WORTH * computing and size <= room:
        return Choice("features", told)
    if items * frame_bytes <= room:
        return Choice("frames", told)
    return Choice("nothing", f"{told}, {room / 2**30:.3g} GiB of room")
