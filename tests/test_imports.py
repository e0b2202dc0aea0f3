"""What may be imported by everybody stays light."""

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "transformers", "peft", "accelerate", "ray", "gradio", "fastapi"]


def loaded_by(code: str) -> list[str]:
    """The heavy packages that a fresh interpreter holds after `code`."""
    program = f"{code}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import minigpt4_video",
        "import minigpt4_video.media",
        "import minigpt4_video.messages, minigpt4_video.planning, minigpt4_video.instructions",
        "import minigpt4_video.cli",
        "from minigpt4_video.cli import main; main(['--help'])",
        "from minigpt4_video.cli import main; main(['ask', '--help'])",
    ],
)
def test_no_heavy_package_is_loaded_by(code):
    assert loaded_by(code) == []


def test_names_that_need_torch_are_loaded_when_first_asked_for():
    assert "torch" in loaded_by("import minigpt4_video as mv; mv.MiniGPT4VideoConfig")


def test_every_public_name_can_be_had():
    import minigpt4_video

    for name in minigpt4_video.__all__:
        assert getattr(minigpt4_video, name) is not None
    assert set(minigpt4_video.__all__) <= set(dir(minigpt4_video))


def test_help_needs_about_a_second():
    program = (
        "import resource; from minigpt4_video.cli import main; main(['--help'])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime)"
    )
    # Processor time, not wall time, and the best of three: a busy machine must not fail this.
    seconds = min(
        float(
            subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=90
            ).stdout.split()[-1]
        )
        for _ in range(3)
    )
    assert seconds < 1.5
