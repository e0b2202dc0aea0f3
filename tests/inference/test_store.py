"""What is kept on disk gives the same answers as what is computed, or is not there."""

import copy
import errno
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

import minigpt4_video as mv
from making import write_video
from minigpt4_video.errors import UserError
from minigpt4_video.inference import store as stores
from minigpt4_video.inference.store import ASIDE, Store, find_store, key, stored_clip
from minigpt4_video.media import read_clip

NAME = key("features", "of", 1)
VALUES = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4, dtype=torch.bfloat16)}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def told(caplog) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING)
    logging.getLogger("minigpt4_video").propagate = True
    return caplog


def entry(store: Store) -> Path:
    (file,) = store.folder.rglob("*.safetensors")
    return file


def test_what_was_put_is_there_in_type_and_form(store):
    store.put(NAME, VALUES)
    held = store.get(NAME)

    assert {name: (value.dtype, value.tolist()) for name, value in held.items()} == {
        name: (value.dtype, value.tolist()) for name, value in VALUES.items()
    }
    assert store.get(key("features", "of", 2)) is None


def test_keys_differ_wherever_anything_does():
    parts = [["a", 1], ["a", "1"], ["a", [1]], ["a1"], ["a", None], ["a", 1.0], ["a", 1, None]]
    assert len({key("frames", *part) for part in parts} | {key("prefix", *part) for part in parts}) == 14


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: bytes([255] * 8) + data[8:],
        lambda data: data.replace(b"checksums", b"checksumz"),
        lambda data: b"\0" * len(data),
    ],
)
def test_a_damaged_entry_counts_as_not_there_and_is_replaced(store, damage):
    store.put(NAME, VALUES)
    file = entry(store)
    file.write_bytes(damage(file.read_bytes()))
    assert store.get(NAME) is None

    store.put(NAME, VALUES)
    assert store.get(NAME) is not None


def test_an_entry_under_another_name_counts_as_not_there(store):
    other = key("features", "of", 2)
    store.put(NAME, VALUES)
    moved = store._place(other)
    moved.parent.mkdir(parents=True, exist_ok=True)
    entry(store).rename(moved)

    assert store.get(other) is None


def test_every_single_bit_is_guarded(store):
    store.put(NAME, {"a": torch.arange(3, dtype=torch.uint8)})
    file = entry(store)
    whole = file.read_bytes()
    for at in range(8 * len(whole)):
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        file.write_bytes(bytes(data))
        held = store.get(NAME)
        assert held is None or torch.equal(held["a"], torch.arange(3, dtype=torch.uint8))


def test_the_longest_unused_go_first_when_it_is_full(store):
    names = [key("frames", number) for number in range(4)]
    for age, name in enumerate(names):
        store.put(name, {"a": torch.zeros(1000)})
        os.utime(store._place(name), (time.time() - 100 + age,) * 2)
    assert store.get(names[0]) is not None  # used again
    size = store._place(names[0]).stat().st_size
    store.limit = 3 * size
    store.put(key("frames", 9), {"a": torch.zeros(1000)})

    assert [store.get(name) is not None for name in names] == [True, False, False, True]
    assert store.held()["frames"] == (3, 3 * size)


def test_parts_are_apart_but_have_one_limit_and_are_told_pruned_and_cleared_together(store):
    one, other = store.part("one"), store.part("other")
    for part in (one, store, other):
        assert part.get(NAME) is None
        part.put(NAME, {"a": torch.zeros(1000)})
    for age, part in enumerate((one, store, other)):
        os.utime(part._place(NAME), (time.time() - 100 + age,) * 2)
    size = one._place(NAME).stat().st_size
    assert store.held()["features"] == (3, 3 * size) and one.held()["features"] == (1, size)

    store.limit = 3 * size
    other.put(key("features", "more"), {"a": torch.zeros(1000)})

    assert [place.get(NAME) is not None for place in (one, store, other)] == [False, True, True]
    assert store.clear() == (3, 3 * size)
    assert not list(store.folder.iterdir())


def test_what_is_larger_than_the_store_is_not_kept(store):
    store.put(NAME, VALUES)
    store.limit = 3000
    store.put(key("features", 2), {"a": torch.zeros(1000)})

    assert store.held()["features"].entries == 1


def test_what_a_killed_process_left_is_removed_once_it_is_old(store):
    store.put(NAME, VALUES)
    young, old = (entry(store).with_name(f"{name}{ASIDE}") for name in ("young", "old"))
    young.write_bytes(b"half")
    old.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * stores.ABANDONED_AFTER,) * 2)
    store.prune(store.limit)

    assert young.exists() and not old.exists()
    assert store.get(NAME) is not None


WRITER = """
import sys, torch
from pathlib import Path
from minigpt4_video.inference.store import Store, key
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for number in range(3):
        store.put(key("prefix", number), {"a": torch.full((300_000,), float(number))})
"""


def started(program: str, store: Store, *given: object) -> subprocess.Popen[bytes]:
    """A fresh process: one forked from this one would hold locks of threads that it does not have."""
    command = [sys.executable, "-c", program, str(store.folder), *map(str, given)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killing_a_writer_at_any_time_leaves_whole_entries_or_none(store):
    hits = 0
    for delay in np.linspace(0.001, 0.12, 12):
        with started(WRITER, store) as writer:
            writer.stdout.readline()
            time.sleep(delay)
            writer.kill()
        for number in range(3):
            held = store.get(key("prefix", number))
            assert held is None or bool((held["a"] == number).all())
            hits += held is not None
    assert hits  # it did write


KILLED_BEFORE_RENAMING = """
import os, signal, sys, torch
from pathlib import Path
from minigpt4_video.inference.store import Store, key
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Store(Path(sys.argv[1])).put(key("features", "of", 1), {"a": torch.arange(6.0)})
"""


def test_a_process_killed_between_writing_and_renaming_leaves_no_entry(store):
    with started(KILLED_BEFORE_RENAMING, store) as writer:
        assert writer.wait(timeout=240) == -signal.SIGKILL

    assert store.get(NAME) is None
    assert len(list(store.folder.rglob(f"*{ASIDE}"))) == 1
    store.put(NAME, VALUES)
    assert store.get(NAME) is not None


WRITES_OFTEN = """
import sys, torch
from pathlib import Path
from minigpt4_video.inference.store import Store, key
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
for _ in range(60):
    store.put(key("features", "of", 1), {"a": torch.ones(50_000)})
"""


KILLED_AT_EVERY_LINE = """
import os, signal, sys, time, torch
from pathlib import Path
from minigpt4_video.inference import store as stores
from minigpt4_video.inference.store import Store, key

torch.set_num_threads(1)  # the children are forked, and threads are not
film = Path(sys.argv[1]) / "film"
film.parent.mkdir()
film.write_bytes(b"content")
stores.RECENT = -1.0
digest = stores.file_digest(film)
name, values = key("features", "of", 1), {"a": torch.arange(6.0)}

def written(folder):
    store = Store(folder, limit=2000)
    store.put(key("frames", 1), {"a": torch.zeros(300)})
    assert store.digest(film) == digest
    store.put(name, values)
    store.put(key("frames", 2), {"a": torch.zeros(300)})

def killed_at(line, folder):
    left = [line]
    def trace(frame, event, argument):
        if not frame.f_code.co_filename.endswith("store.py"):
            return None
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    child = os.fork()
    if child == 0:
        sys.settrace(trace)
        written(folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0

line, hits = 0, 0
while killed_at(line, folder := Path(sys.argv[1]) / str(line)):
    store = Store(folder, limit=2000)
    held = store.get(name)
    assert held is None or torch.equal(held["a"], values["a"])
    hits += held is not None
    assert store.digest(film) == digest
    for number in (1, 2):
        frames = store.get(key("frames", number))
        assert frames is None or torch.equal(frames["a"], torch.zeros(300))
    store.put(name, values)
    assert torch.equal(store.get(name)["a"], values["a"])
    line += int(sys.argv[2])
print(line, hits)
"""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_killed_at_any_line_of_the_store_loses_nothing_and_tells_nothing_wrong(store, step):
    with started(KILLED_AT_EVERY_LINE, store, step) as writer:
        told = writer.stdout.read().split()
        assert writer.wait(timeout=60) == 0

    lines, hits = map(int, told)
    assert lines > 100 and 0 < hits < lines / step


def test_several_writers_of_one_entry_never_show_a_half_one(store):
    store.put(NAME, {"a": torch.ones(50_000)})
    with started(WRITES_OFTEN, store) as one, started(WRITES_OFTEN, store) as other:
        writers = (one, other)
        try:
            for writer in writers:
                assert writer.stdout.readline() == b"ready\n"
            looked, ends = 0, time.monotonic() + 200
            while time.monotonic() < ends and (looked < 30 or any(writer.poll() is None for writer in writers)):
                held = store.get(NAME)
                assert held is not None and bool((held["a"] == 1).all())
                looked += 1
            assert [writer.poll() for writer in writers] == [0, 0]
        finally:
            for writer in writers:
                writer.kill()
    assert not list(store.folder.rglob(f"*{ASIDE}"))


def ask(model: Path, video: Path, store: Store | None) -> tuple[str, float]:
    answer = mv.VideoChat.from_pretrained(model, device="cpu", store=store).open(video).ask("What happens?")
    return answer.text, answer.confidence


def test_a_full_disk_is_one_line_and_the_answer_comes(store, random_model, subtitled, monkeypatch, told):
    expected = ask(random_model, subtitled, None)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stores, "save", full)
    assert ask(random_model, subtitled, store) == expected
    assert {record.getMessage() for record in told.records} == {
        f"the store {store.folder} could not keep what was computed: the disk is full"
    }
    assert len(told.records) == 1
    assert not [file for file in store.folder.rglob("*") if file.is_file() and stores.NOTES not in file.parts]


def test_what_could_not_be_written_to_its_end_leaves_nothing(store, monkeypatch, told, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "film").write_bytes(b"content")
    monkeypatch.setattr(stores, "RECENT", -1.0)
    monkeypatch.setattr(stores.os, "replace", full)
    store.put(NAME, VALUES)
    store.put(NAME, VALUES)
    assert store.digest(tmp_path / "film") == stores.file_digest(tmp_path / "film")

    assert [record.getMessage() for record in told.records] == [
        f"the store {store.folder} could not keep what was computed: the disk is full"
    ]
    assert not [file for file in store.folder.rglob("*") if file.is_file()]


def test_a_full_disk_is_one_line_on_the_command_line(command, random_model, subtitled, monkeypatch):
    asked = ("ask", subtitled, "What happens?", "--model", random_model)
    expected = command(*asked, "--device", "cpu")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stores, "save", full)
    command("store", "clear")
    status, said, told = command(*asked)
    assert (status, said) == expected[:2] and said.strip()
    assert told.count("\n") == expected[2].count("\n") + 1
    assert "could not keep what was computed: the disk is full" in told


def test_the_digest_of_a_file_is_noted_once_it_has_rested(store, tmp_path, monkeypatch):
    """Two writes at once may leave a file with one time of change, and the first one's digest would be told."""
    film = tmp_path / "film"
    film.write_bytes(b"one")
    store.digest(film)
    assert not (store.folder / stores.NOTES).exists()
    monkeypatch.setattr(stores, "RECENT", -1.0)
    told = store.digest(film)
    monkeypatch.setattr(stores, "file_digest", lambda _: pytest.fail("it was read again"))
    assert store.digest(film) == told
    store.prune(0)
    assert not [file for file in store.folder.rglob("*") if file.is_file()]


def test_a_store_that_cannot_be_written_to_does_not_keep_an_answer_back(tmp_path, random_model, subtitled):
    (tmp_path / "file").write_text("no folder")
    assert ask(random_model, subtitled, Store(tmp_path / "file" / "store")) == ask(random_model, subtitled, None)


@pytest.mark.parametrize("kept", [("frames", "features", "prefix"), ("frames", "features"), ("frames",), ("features",)])
def test_what_is_stored_answers_as_what_is_computed(store, random_model, subtitled, monkeypatch, kept):
    fresh = ask(random_model, subtitled, None)
    assert ask(random_model, subtitled, store) == fresh
    assert all(store.held()[kind].entries == 1 for kind in ("frames", "features", "prefix"))
    for kind in store.held():
        if kind not in kept:
            for file in (store.folder / kind).rglob("*.safetensors"):
                file.unlink()

    assert ask(random_model, subtitled, store) == fresh


def test_a_second_process_neither_decodes_nor_encodes_nor_reads_the_video(store, random_model, subtitled, monkeypatch):
    from minigpt4_video.inference import chat
    from minigpt4_video.model.branches import Branches

    fresh = ask(random_model, subtitled, store)
    for owner, name in ((chat, "read_clip"), (chat.VideoChat, "encode"), (Branches, "_begin")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("it was computed again"))

    assert ask(random_model, subtitled, store) == fresh


def test_whatever_changes_the_answer_changes_the_key(store, random_model, subtitled, tmp_path, monkeypatch):
    """Another file under the same name, other subtitles, another part, other weights, in memory too: never a hit."""
    chat = mv.VideoChat.from_pretrained(random_model, device="cpu", store=store)
    fresh = mv.VideoChat.from_pretrained(random_model, device="cpu")

    def same(**part):
        stored = chat.open(subtitled, **part).ask("What happens?")
        return (stored.text, stored.confidence) == (
            (again := fresh.open(subtitled, **part).ask("What happens?")).text,
            again.confidence,
        )

    def grown() -> bool:
        before, counted[:] = counted[0], [store.held()["prefix"].entries]
        return counted[0] == before + 1

    counted = [0]
    assert same() and grown()
    assert same() and not grown()
    assert same(subtitles="off") and grown()
    assert same(start=0.5) and grown()
    assert same(frames=2) and grown()
    subtitled.with_suffix(".srt").write_text("1\n00:00:00,000 --> 00:00:00,900\nsomething else\n")
    assert same() and grown()
    status = subtitled.stat()
    write_video(subtitled, seconds=2, rate=4)
    os.utime(subtitled, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert same() and grown()
    for model in (chat.model, fresh.model):
        with torch.no_grad():
            model.lm_head.weight.mul_(-1)
    assert same() and grown()
    for processor in (chat.processor, fresh.processor):
        monkeypatch.setattr(processor, "image_mean", [0.1, 0.2, 0.3])
    assert same() and grown()


def test_weights_of_the_same_name_and_other_content_are_other_weights(store, random_model, tmp_path, subtitled):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(random_model, folder)
    first = ask(folder, subtitled, store)
    weights = load_file(folder / "model.safetensors")
    weights["model.multi_modal_projector.linear.bias"] += 1.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    changed = ask(folder, subtitled, store)
    assert changed == ask(folder, subtitled, None) != first


@pytest.mark.parametrize("how", ["merged", "by its data", "cast"])
def test_weights_that_were_changed_in_memory_are_other_weights(store, random_model, how):
    """However they were: peft merges LoRA by a way that torch keeps no count of."""
    chat = mv.VideoChat.from_pretrained(random_model, device="cpu", store=store)
    before = chat.identity()
    assert chat.identity() == before
    if how == "merged":
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(target_modules=r".*language_model.*q_proj", init_lora_weights=False)
        tuned = peft.get_peft_model(chat.model, config)
        assert chat.identity() != before
        tuned.merge_and_unload()
    elif how == "by its data":
        chat.model.model.language_model.layers[1].mlp.up_proj.weight.data.mul_(1.01)
    else:
        chat.model.to(torch.bfloat16)
    assert chat.identity() != before


def test_weights_in_memory_are_other_ones_where_their_configuration_is_another(store, random_model):
    chat = mv.VideoChat.from_pretrained(random_model, device="cpu")
    config = copy.deepcopy(chat.model.config)
    config.text_config.rope_parameters = {"rope_type": "default", "rope_theta": 3.0}
    turned = type(chat.model)(config).eval()
    turned.load_state_dict(chat.model.state_dict())
    known, other = (mv.VideoChat(model, chat.processor, "it", store=store) for model in (chat.model, turned))

    assert known.identity() != other.identity()
    assert mv.VideoChat(chat.model, chat.processor, "another name", store=store).identity() == known.identity()


def test_the_same_weights_are_known_by_the_same_name_with_and_without_a_store(store, random_model):
    with_store, without = (mv.VideoChat.from_pretrained(random_model, "cpu", store=one) for one in (store, None))
    assert with_store.identity() == without.identity()


def test_another_video_may_be_asked_while_one_is_written_to_the_store(store, random_model, subtitled, tmp_path):
    chat = mv.VideoChat.from_pretrained(random_model, device="cpu", store=store)
    busy = []

    def put(*_):
        def look():
            busy.append(not chat.lock.acquire(timeout=10))
            if not busy[-1]:
                chat.lock.release()

        looking = threading.Thread(target=look)
        looking.start()
        looking.join()

    store.put = put
    video = chat.open(subtitled)
    busy.clear()  # opening holds no lock at all
    video.ask("What happens?")
    assert busy == [False, False]
    video.forget()
    video.ask_many(["What happens?", "Who?"])
    assert busy == [False, False, False]


def test_what_was_not_written_yet_does_not_keep_a_forgotten_video_in_memory(store, random_model, subtitled):
    chat = mv.VideoChat.from_pretrained(random_model, device="cpu", store=store)
    video = chat.open(subtitled)
    video.stream("What happens?").close()
    board = weakref.ref(video._prefix.board)
    video.forget()
    gc.collect()

    assert board() is None
    assert video.ask("What happens?").text
    assert all(store.held()[kind].entries == 1 for kind in ("frames", "features", "prefix"))


def test_a_file_that_changes_while_it_is_read_is_not_kept(store, video):
    def slow(path: Path, frames: int, **options):
        clip = read_clip(path, frames, **options)
        path.write_bytes(path.read_bytes() + b"\0")
        return clip

    stored_clip(store, slow, video, 2, size=(8, 8))
    assert store.held()["frames"].entries == 0
    stored_clip(store, read_clip, video, 2, size=(8, 8))
    assert store.held()["frames"].entries == 1


def test_the_environment_names_the_store_or_turns_it_off(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGPT4_VIDEO_STORE", "off")
    assert find_store() is None
    monkeypatch.delenv("MINIGPT4_VIDEO_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_store().folder == tmp_path / "minigpt4-video"
    assert find_store(tmp_path / "here").folder == tmp_path / "here"


def test_an_index_of_a_long_video_is_one_entry_and_goes_as_a_whole(store):
    now = time.time()
    for number, used in enumerate((now - 50, now - 10)):
        folder = store.folder / "index" / "ab" / f"ab{number}"
        folder.mkdir(parents=True)
        for name in ("clips.parquet", "index.json"):
            (folder / name).write_bytes(bytes(1000))
            os.utime(folder / name, (used, used))
    store.put(NAME, VALUES)
    os.utime(next(store.folder.glob("features/*/*")), (now - 30, now - 30))
    rest = store.held()["features"].bytes
    assert store.held()["index"] == (2, 4000)

    assert store.prune(2000 + rest) == (1, 2000)

    assert [folder.name for folder in store.folder.glob("index/*/*")] == ["ab1"] and store.get(NAME) is not None
    store.clear()
    assert not (store.folder / "index").exists()


def test_the_command_line_tells_prunes_and_clears(store, command):
    store.put(NAME, VALUES)
    store.put(key("frames", 1), VALUES)
    where = ("--store", store.folder)
    status, said, _ = command("store", "info", *where)
    assert status == 0 and str(store.folder) in said and "features" in said

    assert command("store", "prune", "--to", "0", *where)[1].startswith("removed 2 entries")
    store.put(NAME, VALUES)
    (store.folder / "mine.txt").write_text("not the store's")
    assert command("store", "clear", *where)[1].startswith("removed 1 entries")
    assert [file.name for file in store.folder.iterdir()] == ["mine.txt"]
    assert command("store", "info", "--store", "off")[0] == 2


def test_asking_on_the_command_line_warms_the_store(command, random_model, video, tmp_path):
    first = command("ask", video, "What happens?", "--model", random_model)
    held = Store(tmp_path / "store").held()
    again = command("ask", video, "What happens?", "--model", random_model)

    kinds = {"frames": 1, "features": 1, "prefix": 1, "words": 0, "index": 0}
    assert {kind: one.entries for kind, one in held.items()} == kinds
    assert first[:2] == again[:2] and first[0] == 0


def test_clearing_what_may_not_be_removed_is_refused_in_a_sentence(store, monkeypatch):
    store.put(NAME, VALUES)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(stores.shutil, "rmtree", refuse)
    with pytest.raises(UserError, match="cannot be removed"):
        store.clear()
