"""JSON lines that are added to while a run goes on, and can be gone on with after any interruption."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minigpt4_video.errors import DataError
from minigpt4_video.inference.writing import write_whole

Row = dict[str, Any]


def read_rows(file: Path) -> list[Row]:
    """The whole rows of a file, none where it is not there; what a kill left of a last row is taken off the file."""
    if not file.exists():
        return []
    rows = []
    whole = 0
    with file.open("rb+") as opened:
        for line in opened:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("id"), str):
                break
            rows.append(row)
            whole += len(line)
        rest = opened.seek(0, 2) - whole
        if rest and b"\n" in _bytes_after(file, whole).rstrip(b"\n"):
            raise DataError(f"{file} is damaged at byte {whole}; move it away, or cut it there, to go on")
        opened.truncate(whole)
    return rows


def _bytes_after(file: Path, at: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(at)
        return opened.read()


def add_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows behind those that are there, in one go."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with file.open("ab") as opened:
        opened.write(text.encode(errors="backslashreplace"))


def write_json(file: Path, value: Any) -> None:
    write_whole(file, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode(errors="backslashreplace"))


def read_json(file: Path) -> Any:
    """Raises DataError where the file cannot be read as JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from error
