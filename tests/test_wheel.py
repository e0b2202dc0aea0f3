"""The wheel is whole: installed elsewhere, without the source tree, it does what the clone does."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel holds, in a folder of its own; what it depends on is there already."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, place: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run(
        [sys.executable, "-c", "import minigpt4_video; print(minigpt4_video.__file__)"],
        cwd=place, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert found.startswith(str(installed)), "the source tree was used instead of the wheel"
    done = subprocess.run(
        [sys.executable, "-m", "minigpt4_video", *words],
        cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_small_enough_to_be_shared(wheel):
    assert wheel.stat().st_size <= 25 * 2**20


def test_help_is_quick_and_loads_nothing_heavy(installed, tmp_path):
    program = (
        "import resource, sys; from minigpt4_video.cli import main; main(['--help'])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "heavy = {'torch', 'transformers', 'av'} & set(sys.modules)\n"
        "print(used.ru_utime + used.ru_stime, sorted(heavy))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    seconds, heavy = done.stdout.splitlines()[-1].split(" ", 1)
    assert float(seconds) < 1 and heavy == "[]"


def test_it_lists_recipes(installed, tmp_path):
    assert "tiny/stage3" in run(installed, tmp_path, "train", "--list")


def test_it_renders_a_world_and_answers_about_it_with_the_model_inside(installed, tmp_path, embedded):
    run(installed, tmp_path, "world", "render", "--output", "world", "--count", "1")
    (video,) = (tmp_path / "world").glob("*.mp4")
    assert run(installed, tmp_path, "ask", str(video), "What happens in the video?").strip()
