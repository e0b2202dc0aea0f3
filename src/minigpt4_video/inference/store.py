"""What is expensive is kept on disk, by the hash of everything that determines it.

An entry is a safetensors file named by its key. It is written aside and renamed, so it is whole or not there; several
processes may write the same one, and the last rename wins with the same content. What cannot be read, or does not have
the checksum written with it, counts as not there. The longest unused entries go when all together take more than the
limit.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from minigpt4_video.errors import UserError
from minigpt4_video.media import Clip

logger = logging.getLogger(__name__)

Kind = Literal["frames", "features", "prefix", "words", "index"]
KINDS: tuple[Kind, ...] = ("frames", "features", "prefix", "words", "index")
"""Sampled frames, what the language model reads of them, the keys and values it has computed of a prompt, words that
were heard, and indexes of long videos, each of which is a folder of files."""

VARIABLE = "MINIGPT4_VIDEO_STORE"
"""Names the folder; "off" means no store."""
LIMIT = 20 * 2**30
NOTES = "files"
"""Beside the kinds: the digests of large files."""
PARTS = "keys"
"""Beside the kinds: stores in the store."""
RECENT = 2.0
"""Seconds in which a file may be written to twice with one time of change."""
ABANDONED_AFTER = 3600.0
"""Seconds after which a file that was being written aside is one that nobody writes any more."""
ASIDE = ".part"
LOOKED_AFTER = 64
"""What other processes added is counted after each such part of the limit."""


class Held(NamedTuple):
    """What there is of one kind."""

    entries: int
    bytes: int


class Store:
    """A folder of at most `limit` bytes that processes may share."""

    def __init__(self, folder: Path, limit: int = LIMIT, whole: "Store | None" = None) -> None:
        self.folder = folder
        self.limit = limit
        self._whole = whole or self
        """The one that is pruned when something was written here."""
        self._warned = False
        self._held: int | None = None
        """Bytes of all entries, when they were last looked at."""
        self._written = 0
        """Bytes that were added here since."""

    def part(self, name: str) -> "Store":
        """A store in this one: what is in either is not found in the other, and both together have the limit."""
        return Store(self.folder / PARTS / name, self.limit, self)

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """The tensors under a key, or None."""
        place = self._place(key)
        try:
            data = place.read_bytes()
            tensors: dict[str, torch.Tensor] = load(data)
            told = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
            if told != _label(key, tensors):
                return None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None
        with suppress(OSError):  # a store that only others may write to serves as well
            os.utime(place)
        return tensors

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors under a key. Where that fails there is no entry, and the first time a warning."""
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        if sum(tensor.nbytes for tensor in held.values()) > self.limit:
            return
        try:
            self._write(self._place(key), save(held, _label(key, held)))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else error.strerror or str(error)
            if not self._warned:
                logger.warning("the store %s could not keep what was computed: %s", self.folder, reason)
            self._warned = True
            return
        self._whole._wrote(sum(tensor.nbytes for tensor in held.values()))

    def _wrote(self, count: int) -> None:
        """Prune where that may be due."""
        self._written += count
        held_now = self.limit if self._held is None else self._held + self._written
        # A look at every entry after each new one would take longer than what it is kept for, once there are many.
        if held_now >= self.limit or self._written > self.limit // LOOKED_AFTER:
            self.prune(self.limit)

    def held(self) -> dict[Kind, Held]:
        """How much there is of each kind."""
        found = {}
        for kind in KINDS:
            sizes = [size for _, size, _ in self._files(kind)]
            found[kind] = Held(len(sizes), sum(sizes))
        return found

    def prune(self, limit: int) -> Held:
        """Remove the longest unused entries until the rest take at most `limit` bytes; what was removed."""
        files = sorted(file for kind in (*KINDS, NOTES) for file in self._files(kind))
        total = sum(size for _, size, _ in files)
        gone = freed = 0
        for used, size, file in files:
            abandoned = file.suffix == ASIDE and time.time() - used > ABANDONED_AFTER
            if abandoned or (total > limit and file.suffix != ASIDE):
                if file.is_dir():
                    shutil.rmtree(file, ignore_errors=True)
                else:
                    file.unlink(missing_ok=True)
                total -= size
                gone += 1
                freed += size
        self._held, self._written = total, 0
        return Held(gone, freed)

    def clear(self) -> Held:
        """Remove everything that is the store's; what was removed. Raises UserError where that is not allowed."""
        before = self.held()
        for name in (*KINDS, NOTES, PARTS):
            try:
                shutil.rmtree(self.folder / name)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise UserError(f"{error.filename} cannot be removed: {error.strerror}") from error
        return Held(sum(held.entries for held in before.values()), sum(held.bytes for held in before.values()))

    def digest(self, file: Path) -> str:
        """SHA-256 of a large file, computed once for each state of it.

        The state is everything the file system knows: any write to the file changes it, unless it follows another at
        once. So what has just been written is not noted.
        """
        status = file.stat()
        state = [str(file.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        name = _hash(state)
        place = self.folder / NOTES / name[:2] / name
        try:
            known = place.read_text(encoding="ascii")
            if len(known) == 64 and set(known) <= set("0123456789abcdef"):
                with suppress(OSError):
                    os.utime(place)
                return known
        except (OSError, ValueError):
            pass  # not computed before
        digest = file_digest(file)
        if time.time() - status.st_ctime > RECENT:
            with suppress(OSError):  # the next process computes it again
                self._write(place, digest.encode())
        return digest

    def _write(self, place: Path, content: bytes) -> None:
        """Aside, then renamed: the file is whole or not there, and what could not be written leaves nothing."""
        # Frames of films that are nobody else's business, so the folders are for their owner.
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, aside = tempfile.mkstemp(dir=place.parent, suffix=ASIDE)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(aside, place)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def _place(self, key: str) -> Path:
        kind, _, name = key.partition("-")
        return self.folder / kind / name[:2] / f"{name}.safetensors"

    def _files(self, kind: str) -> list[tuple[float, int, Path]]:
        """Last use, size and path of all entries of a kind, in the parts too, and those being written among them."""
        found = []
        for entry in (*self.folder.glob(f"{kind}/*/*"), *self.folder.glob(f"{PARTS}/*/{kind}/*/*")):
            try:
                parts = [file.stat() for file in (entry.iterdir() if entry.is_dir() else (entry,))]
                found.append((max(one.st_mtime for one in parts), sum(one.st_size for one in parts), entry))
            except (OSError, ValueError):
                continue  # another process has just removed it, or begins it
        return found


_State = list[tuple[str, int, int, float]]

LOOKED_AT = 1024
"""Values of a matrix that tell whether it was changed."""


class Weights:
    """Which weights a model has: the files they were read from, or what is in memory where that was changed since."""

    def __init__(self, model: torch.nn.Module, folder: Path | None) -> None:
        self._model = model
        self._folder = folder
        self._loaded = self._state()
        self._known: tuple[_State, str] | None = None

    def digest(self, store: Store | None) -> str:
        """One for all weights, with adapters; another dtype is for the caller to tell apart."""
        state = self._state()
        if self._known is not None and self._known[0] == state:
            return self._known[1]
        if self._folder is None or state != self._loaded:
            # What is not among the weights, such as the base of the rotations, changes what they compute.
            config = getattr(self._model, "config", None)
            made = _hash([module_digest(self._model), config.to_json_string() if config else ""])
        else:
            digest = store.digest if store else file_digest
            files = sorted(file for file in self._folder.rglob("*") if file.is_file())
            made = _hash([(str(file.relative_to(self._folder)), digest(file)) for file in files])
        self._known = state, made
        return made

    def _state(self) -> _State:
        """Names, places and versions of all weights, and a few of their values.

        A write in place counts a version up, but not one by way of `.data`, as peft merges; that changes values all
        over a matrix.
        """
        return [
            (name, tensor.data_ptr(), tensor._version, _sample(tensor))
            for name, tensor in self._model.named_parameters()
        ]


def _sample(tensor: torch.Tensor) -> float:
    """The sum of some values that lie evenly in memory."""
    lying = tensor.detach().t() if tensor.ndim == 2 and not tensor.is_contiguous() else tensor.detach()
    flat = lying.reshape(-1)  # a view: a copy would take as much memory again
    return float(flat[:: flat.numel() // LOOKED_AT + 1].cpu().double().sum())


def find_store(where: str | Path | None = None) -> Store | None:
    """The store in a folder, None for "off"; without a name where the environment says, else in the user's cache."""
    named = where or os.environ.get(VARIABLE)
    if named == "off":
        return None
    if named:
        return Store(Path(named))
    return Store(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minigpt4-video")


def key(kind: Kind, *parts: Any) -> str:
    """A key from everything that determines a value: numbers, texts, digests, and lists of such."""
    return f"{kind}-{_hash([kind, *parts])}"


def _hash(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def source_digest(folder: Path) -> str:
    """SHA-256 of the Python files of a package: another version of the code may compute another value."""
    made = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        made.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    return made.hexdigest()


def array_digest(array: np.ndarray[Any, Any]) -> str:
    """SHA-256 of an array's content, form and type."""
    made = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    made.update(np.ascontiguousarray(array).data)
    return made.hexdigest()


def module_digest(module: torch.nn.Module) -> str:
    """SHA-256 of all weights as they are in memory."""
    made = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        made.update(_bytes(tensor.detach().cpu()))
    return made.hexdigest()


def clip_parts(content: str, frames: int, options: Mapping[str, Any]) -> list[Any]:
    """All that determines what reading a video with this `content` (a digest) gives."""
    import av

    import minigpt4_video.media as media

    return [content, frames, options, source_digest(Path(media.__file__).parent), av.__version__, av.library_versions]


def stored_clip(store: Store | None, read: Callable[..., Clip], path: Path, frames: int, **options: Any) -> Clip:
    """What `read(path, frames, **options)` gives, from the store where it is there."""
    if store is None:
        return read(path, frames, **options)
    try:
        before = path.stat()
        content = file_digest(path)
    except OSError:
        return read(path, frames, **options)  # which says what is wrong with the file
    name = key("frames", *clip_parts(content, frames, options))
    if (kept := store.get(name)) is not None:
        return Clip(kept["frames"].numpy(), kept["times"].numpy(), float(kept["duration"]))
    clip = read(path, frames, **options)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino):
        held = {
            "frames": torch.from_numpy(clip.frames),
            "times": torch.from_numpy(np.asarray(clip.times, np.float64)),
            "duration": torch.tensor(clip.duration, dtype=torch.float64),
        }
        store.put(name, held)
    return clip


def _label(key: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """What an entry says of itself."""
    sums = {name: zlib.crc32(_bytes(tensor)) for name, tensor in sorted(tensors.items())}
    return {"key": key, "checksums": json.dumps(sums, sort_keys=True)}


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
