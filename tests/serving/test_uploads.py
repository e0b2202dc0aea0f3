"""What clients send is kept whole, or not at all."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from minigpt4_video.serving.faults import Fault
from minigpt4_video.serving.limits import Limits
from minigpt4_video.serving.uploads import Uploads


@pytest.mark.parametrize("fails", [1, 2])  # the content, and what is known of it
def test_on_a_full_disk_an_upload_leaves_nothing_and_no_path_is_told(tmp_path: Path, monkeypatch, fails: int):
    uploads = Uploads(tmp_path / "uploads", Limits())
    replace, done = os.replace, 0

    def full(source: Any, target: Any) -> None:
        nonlocal done
        done += 1
        if done == fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Fault) as refused:
        uploads.add("open", "clip.mp4", "user_data", io.BytesIO(b"abc"), None)

    assert refused.value.status_code == 507
    assert str(tmp_path) not in str(refused.value)
    assert [path for path in uploads._folder.rglob("*") if path.is_file()] == []
