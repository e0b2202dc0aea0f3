"""What runs all tests on a fresh machine ends when they end, whatever they leave behind."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"

pytestmark = pytest.mark.skipif(
    not SCRIPT.is_file() or shutil.which("setsid") is None, reason="needs a clone of the repository, and Linux"
)


@pytest.fixture
def survivors(tmp_path: Path) -> Iterator[Path]:
    """A file to which commands write the ids of processes that are not to outlive a test."""
    file = tmp_path / "survivors"
    yield file
    for number in file.read_text().split() if file.exists() else []:
        with suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)


def run(folder: Path, test: str, limit: int) -> tuple[int, str, float]:
    """Exit status, output and seconds of the script where `make test` is the shell command `test`."""
    (folder / ".ci").mkdir()
    shutil.copy(SCRIPT, folder / ".ci" / "run")
    (folder / "Makefile").write_text(f"%.installed:\n\t@echo ready\nlint:\n\t@echo clean\ntest:\n\t@{test}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    began = time.monotonic()
    ran = subprocess.run(
        ["bash", ".ci/run"],
        cwd=folder,
        env=environment | {"CI_LIMIT": str(limit)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    return ran.returncode, ran.stdout, time.monotonic() - began


def test_all_is_shown_and_the_last_line_is_the_tests_own(tmp_path: Path) -> None:
    status, output, _ = run(tmp_path, "echo some fine; echo 2 passed", 60)
    assert status == 0
    lines = output.splitlines()
    assert {"ready", "clean", "some fine"} <= set(lines)
    assert lines[-1] == "2 passed"


@pytest.mark.parametrize("way", ["sleep 90 &", "setsid sleep 90 &"], ids=["in its group", "in a session of its own"])
def test_a_process_that_is_left_behind_keeps_nobody_waiting(tmp_path: Path, survivors: Path, way: str) -> None:
    status, output, seconds = run(tmp_path, f"{way} echo $$! >>{survivors}; echo 1 failed; exit 3", 60)
    assert status != 0 and "1 failed" in output and "all in" not in output
    assert seconds < 30
    if way.startswith("sleep"):
        state = Path(f"/proc/{survivors.read_text().strip()}/stat")
        assert not state.exists() or " Z " in state.read_text()


def test_tests_that_never_end_are_ended(tmp_path: Path, survivors: Path) -> None:
    status, output, seconds = run(tmp_path, f"echo begun; sleep 90 & echo $$! >>{survivors}; wait", 2)
    assert status == 124 and "begun" in output and "given up after" in output
    assert seconds < 30
