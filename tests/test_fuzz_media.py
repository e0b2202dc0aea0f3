"""The search for files that break the readers finds what is broken, and nothing where nothing is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "fuzz_media.py"


def searched(folder: Path, fault: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and report of a short search with `fault` in the place of the reading of damaged files."""
    code = f"import av, os, sys\ntrue = av.open\ndef opened(*arguments, **options):\n    {fault}\n"
    code += "    return true(*arguments, **options)\nif '--reader' in sys.argv: av.open = opened\n"
    (folder / "sitecustomize.py").write_text(code)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(TOOL), "--output", str(folder / "found"), "--seed", "test", *options]
    ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=280)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, json.loads((folder / "found" / "report.json").read_text())


def test_readers_that_are_in_order_are_told_so(tmp_path: Path) -> None:
    status, report = searched(tmp_path, "pass", "--minutes", "4", "--cases", "30")
    assert status == 0 and report["faults"] == {} and report["cases"] == 30, report
    assert report["endings"]["read"] and report["endings"]["refused"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raise AssertionError('x')", "AssertionError in sources.py:open_media"),
        ("os.kill(os.getpid(), 11)", "crashes with status -11"),
    ],
)
def test_what_is_broken_is_found_and_kept(fault: str, told: str, tmp_path: Path) -> None:
    status, report = searched(tmp_path, fault, "--case", "3")
    assert status == 1 and told in report["faults"], report
    number = report["faults"][told]["cases"][0]["case"]
    assert list((tmp_path / "found").glob(f"case-{number}.*"))
