"""A job on Ray: actors that read clips feed actors that caption them, on this machine or on a cluster.

Ray places actors, moves what they hand on, and tells when one is gone. What is to be done and what is done stays with
the driver, which gives out a few clips at a time and keeps each label as it comes, as a job of one process does; so
either can go on where the other stopped. Ray Data is not used: it goes on by ids that it holds all in memory, drops
the whole block of a row that raises, and gives a clip that kills its actor to the next actor for ever. Here a clip that
has killed four is an error, and all others are labelled.
"""

import logging
import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

from minigpt4_video.errors import LabellingError, UserError
from minigpt4_video.labelling.actors import CaptioningActor, ReadingActor
from minigpt4_video.labelling.captioner import Captioner, Settings, brief, lost
from minigpt4_video.labelling.manifest import Work
from minigpt4_video.labelling.reading import Form
from minigpt4_video.labelling.rows import Label, Stage
from minigpt4_video.media import Limits

logger = logging.getLogger(__name__)

LOCAL = "local"
TRIES = 4
"""So often an actor may die at a clip. An actor can die of other things, but not so often at the same."""
AT_ONCE = 2
"""Calls that an actor has: one to work at, one so that it need not wait."""
ROUNDS = 4
"""So many times as many clips as are answered together go to a captioner in one call."""
PATIENCE = 900.0
"""Seconds without anything to do but wait for a place for actors."""
SECONDS_TO_ANSWER = 10.0
SETBACKS = 20
"""So often in a row, for each actor that there should be, one may die or what it made be lost."""

STARTS = 3
"""Ray gives itself half a minute to start on this machine, which is too little for one that is busy."""

Ref = Any
"""Of an object that Ray holds."""


@dataclass(frozen=True)
class Cluster:
    """Where to run, and how many captioners to start."""

    address: str = LOCAL
    """"local" starts Ray on this machine; "auto", or an address, joins one that runs."""
    captioners: int = 1
    """Each has a model, one processor, and one GPU where the cluster has any."""


def labels_on_ray(
    works: Iterable[Work],
    cluster: Cluster,
    captioner: Callable[[], Captioner],
    settings: Settings,
    form: Form,
    limits: Limits,
    readers: int,
    together: int | None,
) -> Iterator[list[Label]]:
    """The labels of each clip, in any order. `captioner` is called in every captioning actor; `together` clips are
    answered together, None is 1 on a processor and 8 on a GPU.

    Raises LabellingError where Ray or a place for the actors cannot be had, and what `captioner` raises.
    """
    with started(cluster, readers):
        import ray

        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        together = together or (8 if gpus else 1)
        spread = {"max_restarts": 0, "max_task_retries": 0, "num_cpus": 1, "scheduling_strategy": "SPREAD"}
        captions = ray.remote(CaptioningActor).options(num_gpus=gpus, **spread)
        reads = ray.remote(ReadingActor).options(**spread)
        flow = _Flow(
            iter(works),
            1 if together == 1 else ROUNDS * together,
            _Pool("caption", captions, (captioner,), cluster.captioners),
            _Pool("read", reads, (form, limits), readers),
            settings,
        )
        yield from flow.labels()


class Actor(Protocol):
    """Either of the two, by Ray's handle."""

    begin: Any
    work: Any


@dataclass(eq=False)
class _Clips:
    """Clips that go together."""

    works: list[Work]
    tries: int = 0
    """That came to nothing."""
    seen: Ref = None


@dataclass(eq=False)
class _Hand:
    """An actor, and the clips that it has, the first of which it is at."""

    actor: Actor
    has: list[_Clips] = field(default_factory=list)
    is_ready: bool = False


class _Pool:
    """So many actors of a kind, which begin with what they are given."""

    def __init__(self, stage: Stage, kind: Any, given: tuple[Any, ...], size: int) -> None:
        self.stage = stage
        self.kind = kind
        self.given = given
        self.size = size
        self.hands: list[_Hand] = []

    def idlest(self) -> _Hand | None:
        """One that can have more."""
        ready = [hand for hand in self.hands if hand.is_ready and len(hand.has) < AT_ONCE]
        return min(ready, key=lambda hand: len(hand.has), default=None)


class _Underway(NamedTuple):
    pool: _Pool
    hand: _Hand
    clips: _Clips | None
    """None while the actor is being placed."""


class _Flow:
    """A job's way through two pools, as the driver sees it."""

    def __init__(self, works: Iterator[Work], together: int, captions: _Pool, reads: _Pool, settings: Settings) -> None:
        self.works = works
        self.together = together
        self.captions = captions
        self.reads = reads
        self.settings = settings
        self.again: deque[_Clips] = deque()
        """What is to be read once more."""
        self.read: deque[_Clips] = deque()
        """What waits for a captioner."""
        self.underway: dict[Ref, _Underway] = {}
        self.all_given = False
        self.setbacks = 0
        """Since a clip was done."""

    def labels(self) -> Iterator[list[Label]]:
        import ray

        while True:
            self._hand_out()
            at_work = any(one.clips for one in self.underway.values())
            if self.all_given and not (at_work or self.read or self.again):
                return
            done, _ = ray.wait(list(self.underway), num_returns=1, timeout=PATIENCE, fetch_local=False)
            if not done and not at_work:
                stage = next(one.pool.stage for one in self.underway.values())
                raise LabellingError(
                    f"no place was found in {PATIENCE:.0f} s for actors that {stage} clips; what is done is kept: give"
                    " the cluster more processors or GPUs, or ask for fewer --readers and --captioners"
                )
            for ref in done:
                yield from self._took(ref)

    def _hand_out(self) -> None:
        """Have all at work that can be, but no more read than captioners will soon take."""
        for pool in (self.captions, self.reads):
            while len(pool.hands) < pool.size:
                new = _Hand(pool.kind.remote())
                pool.hands.append(new)
                self.underway[new.actor.begin.remote(*pool.given)] = _Underway(pool, new, None)
        while self.read and (hand := self.captions.idlest()):
            clips = self.read.popleft()
            hand.has.append(clips)
            self.underway[hand.actor.work.remote(clips.works, clips.seen)] = _Underway(self.captions, hand, clips)
        most = AT_ONCE * self.captions.size + self.reads.size
        while len(self.read) + sum(len(one.has) for one in self.reads.hands) < most:
            if not (hand := self.reads.idlest()) or not (unread := self._next()):
                break
            hand.has.append(unread)
            sign, unread.seen = hand.actor.work.options(num_returns=2).remote(unread.works)
            self.underway[sign] = _Underway(self.reads, hand, unread)

    def _next(self) -> _Clips | None:
        if self.again:
            return self.again.popleft()
        works = list(islice(self.works, self.together))
        self.all_given = not works
        return _Clips(works) if works else None

    def _took(self, ref: Ref) -> Iterator[list[Label]]:
        """What has come back: the labels that it brings, if any."""
        import ray
        from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

        pool, hand, clips = self.underway.pop(ref)
        was_at_it = hand in pool.hands and hand.has[:1] == [clips]
        if clips is not None:
            hand.has.remove(clips)
        try:
            result = ray.get(ref)
        except RayError as error:
            self._count(error)
            # An error of a task may be that of the actor whose result it was to have; an actor whose class cannot be
            # had is said to have died of its creation.
            if isinstance(error, RayActorError) and not isinstance(error, RayTaskError):
                if "creation task" in str(error):
                    raise _unloadable(error) from error
                self._bury(pool, hand)
            elif clips is None:
                raise _unloadable(error) from error
            else:
                was_at_it = not isinstance(error, RayActorError | ObjectLostError)
            if clips is not None:
                yield from self._lost(pool, clips, error, was_at_it)
            return
        if clips is None:
            hand.is_ready = True
        elif pool is self.reads:
            self.read.append(clips)
        else:
            self.setbacks = 0
            yield from result

    def _count(self, error: Exception) -> None:
        self.setbacks += 1
        if self.setbacks > SETBACKS * (self.captions.size + self.reads.size):
            raise LabellingError(
                f"{self.setbacks} actors died or lost what they had, one after another ({_reason(error)}); what is done"
                " is kept: see what their machines lack, which is memory as a rule, then run again"
            )

    def _bury(self, pool: _Pool, hand: _Hand) -> None:
        import ray

        if hand in pool.hands:  # and not its second call that comes back
            ray.kill(hand.actor)  # of one that only cannot be reached
            pool.hands.remove(hand)
            logger.warning("an actor that was to %s clips is gone; another takes its place", pool.stage)

    def _lost(self, pool: _Pool, clips: _Clips, error: Exception, is_to_blame: bool) -> Iterator[list[Label]]:
        """Clips that are to be tried again, each by itself, so that one that kills actors is found."""
        tries = clips.tries + is_to_blame
        if tries < TRIES:
            self.again.extend(_Clips([work], tries) for work in clips.works)
            return
        self.setbacks = 0
        for work in clips.works:
            yield lost(work, self.settings, pool.stage, f"{tries} processes were lost at it: {_reason(error)}")


def _reason(error: Exception) -> str:
    """What was raised in an actor, without Ray's words about it; or else these."""
    return brief(getattr(error, "cause", None) or error)


def _unloadable(error: Exception) -> Exception:
    """Why a model could not be loaded, as its loader said it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return type(cause)(str(cause))
    return LabellingError(f"an actor cannot begin; see whether its machine has all that this one has: {_reason(error)}")


def _check_reachable(address: str) -> None:
    """Raises LabellingError where nobody listens at an address, which Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        raise LabellingError(
            f"Ray at {address} cannot be joined: {error}; name a machine and port that `ray start` has told"
        ) from error


@contextmanager
def started(cluster: Cluster, readers: int) -> Iterator[None]:
    """Ray, for as long as it is needed; one that runs already in this process is used and left running. Raises
    LabellingError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing goes to others; Ray reads it when imported
    try:
        import ray
    except ImportError as error:
        raise LabellingError(f'Ray is missing ({error}): pip install "minigpt4-video[ray]"') from error
    _check_reachable(cluster.address)
    if ray.is_initialized():
        yield
        return
    given: dict[str, Any] = {"address": cluster.address}
    place = None
    if cluster.address == LOCAL:
        # Of its own, for what a killed run left in the usual one has the next one join what is no more. Short, for
        # it becomes part of a socket's name.
        place = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        # Processors by name only: all actors find a place, whatever the machine has.
        given |= {"num_cpus": readers + cluster.captioners, "include_dashboard": False, "_temp_dir": place}
    try:
        for tries_left in range(STARTS - 1, -1, -1):
            try:
                ray.init(**given, log_to_driver=False, logging_level=logging.CRITICAL)
                break
            except Exception as error:  # Ray has no kind of its own for a start that fails
                ray.shutdown()
                if tries_left == 0 or place is None:
                    said = " ".join(str(error).split())
                    raise LabellingError(f"Ray at {cluster.address} cannot be joined: {said:.300}") from error
        yield
    finally:
        ray.shutdown()
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
