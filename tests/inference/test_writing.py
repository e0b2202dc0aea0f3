"""A file that is written is whole, or it is not there."""

import os
import stat

import pytest

from minigpt4_video.errors import UserError
from minigpt4_video.inference.writing import check_writable, write_whole


def test_the_content_arrives_and_nothing_else_is_left(tmp_path):
    write_whole(tmp_path / "页.html", b"whole")
    write_whole(tmp_path / "页.html", b"again")

    assert (tmp_path / "页.html").read_bytes() == b"again"
    assert [file.name for file in tmp_path.iterdir()] == ["页.html"]


def test_others_may_read_it_as_any_new_file(tmp_path):
    plain, written = tmp_path / "plain", tmp_path / "written"
    plain.touch()
    write_whole(written, b"")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_an_interruption_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "page.html"
    file.write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(file, b"new")

    assert file.read_bytes() == b"old"
    assert [left.name for left in tmp_path.iterdir()] == ["page.html"]


def test_a_full_disk_is_told_in_a_sentence(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_whole(tmp_path / "page.html", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_and_a_missing_folder_are_no_place_for_a_file(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        check_writable(tmp_path / "none" / "page.html")
