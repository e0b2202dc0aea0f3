"""Rows of files that others made: one at a time whatever the file's size, and what cannot be read is a `Flaw`.

CSV, JSON, JSON lines and Parquet give `Row`s. A converter asks a row for what it needs and gets it in the right type or
raises `Unusable`; `each` makes that a `Flaw`.
"""

import codecs
import csv
import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from minigpt4_video.data.sample import Flaw, Record
from minigpt4_video.errors import DataError

Rows = Iterator["Row | Flaw"]
Records = Iterator[Record | Flaw]
Made = TypeVar("Made")

LONGEST = 16 * 2**20
"""Bytes of one row; what is longer is no row but a file that lost its line ends or a closing quote."""
SPANNED = 100
"""Lines over which the quotes of one row of a csv file may spread."""
CHUNK = 2**20
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
ALONE = ("video", "path", "file_name")
"""Columns that make a table by themselves."""
SHOWN = 60
"""Characters of a value that a report repeats."""


class Unusable(Exception):
    """Why a row gives no sample; becomes a `Flaw` and never leaves this room."""

    def __init__(self, problem: str, detail: object = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.detail = detail


class Row(NamedTuple):
    where: str
    values: Mapping[str, Any]

    def value(self, *names: str) -> Any:
        """The first of these fields that the row has and that is not empty."""
        for name in names:
            value = self.values.get(name)
            if value is not None and value != "":
                return value
        raise Unusable(f"lacks {names[0]}")

    def text(self, *names: str) -> str:
        """Words: a string with more than spaces in it that can be written as UTF-8."""
        return words(self.value(*names), names[0])

    def name(self, *names: str) -> str:
        """What names a file or a sample; numbers are taken as they are written."""
        value = self.value(*names)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        named = words(value, names[0])
        if "\0" in named or "\n" in named:
            raise Unusable(f"{names[0]} cannot be a name", named)
        return named

    def number(self, name: str) -> float | None:
        """A finite number; None where the row has none. Numbers written as strings count."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        try:
            found = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not math.isfinite(found):
            raise Unusable(f"{name} is not a number", value)
        return found

    def list(self, name: str) -> "list[Any]":
        value = self.value(name)
        if not isinstance(value, list):
            raise Unusable(f"{name} is not a list", value)
        return value


def words(value: object, name: str) -> str:
    """The same value where it is a text that a tokenizer can take. Raises Unusable."""
    if not isinstance(value, str):
        raise Unusable(f"{name} is not a text", value)
    if not value or value.isspace():
        raise Unusable(f"{name} is empty")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Unusable(f"{name} is not whole Unicode", repr(value[error.start])) from error
    return value


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8, which half a pair of surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def each(rows: Iterable[Row | Flaw], convert: Callable[[Row], Iterable[Made]]) -> Iterator[Made | Flaw]:
    """What is made of every row; a row that cannot be used, or not wholly, gives one flaw after those that it has.

    So does one with a value of a kind that its converter does not look for: strangers' rows are of more kinds than were
    thought of, and the others are to be read.
    """
    for row in rows:
        if isinstance(row, Flaw):
            yield row
            continue
        try:
            yield from convert(row)
        except Unusable as reason:
            yield Flaw(row.where, reason.problem, brief(reason.detail))
        except (ValueError, TypeError, OverflowError, OSError) as error:
            yield Flaw(row.where, "has a value that cannot be used", brief(f"{type(error).__name__}: {error}"))


def brief(value: object) -> str:
    """A value as it can stand in a report of one line."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists in lists
        text = f"a {type(value).__name__}"
    text = text.encode(errors="backslashreplace").decode()
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: 4 * SHOWN])
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The file, or the files of a folder with one of these suffixes, by name. Raises DataError where there is none."""
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.is_file())
        if not found:
            raise DataError(f"the folder {path} holds no {' or '.join(suffixes)} file; name the one with the data set")
        return found
    if not path.is_file():
        raise DataError(f"there is no file {path}; check the name of the data set")
    return [path]


def opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def table(path: Path, suffixes: tuple[str, ...] = TABLES) -> Rows:
    """The rows of a .csv, .tsv, .json, .jsonl or .parquet file, or of all in a folder that have one of `suffixes`."""
    for file in files(path, suffixes):
        suffix = file.suffix.lower()
        if suffix in (".csv", ".tsv"):
            yield from csv_rows(file, "\t" if suffix == ".tsv" else ",")
        elif suffix == ".parquet":
            yield from parquet_rows(file)
        else:
            yield from json_rows(file)


# ---- csv


def csv_rows(path: Path, delimiter: str = ",") -> Rows:
    """The rows under a header. A row may spread over lines within quotes; where its quotes do not close, that line is
    one flaw and the next is read as a row again: a reader that trusts quotes would swallow all that follows.
    """
    with opened(path) as file:
        lines = _lines(file, path)
        first = next(lines, None)
        if first is None or isinstance(first, Flaw):
            raise DataError(f"{path} has no line with the names of its columns; it is empty or no csv file")
        header = _cells(first[1].removeprefix("\ufeff"), delimiter)
        header = [name.strip() for name in header or []]
        if len(header) < 2 and header not in ([name] for name in ALONE):
            raise DataError(f"{path} does not begin with the names of its columns; it is no csv file")
        waiting: deque[tuple[int, str] | Flaw] = deque()
        while True:
            line = waiting.popleft() if waiting else next(lines, None)
            if line is None:
                return
            if isinstance(line, Flaw):
                yield line
                continue
            number, text = line
            if not text or text.isspace():
                continue
            where = f"{path.name} line {number}"
            cells = _cells(text, delimiter)
            if cells is None:
                cells = _spread(text, delimiter, waiting, lines)
            if cells is None:
                yield Flaw(where, "quotes do not close", brief(text))
            elif len(cells) != len(header):
                problem = "has not as many cells as the header"
                yield Flaw(where, problem, f"{len(cells)} instead of {len(header)}: {brief(text)}")
            else:
                yield Row(where, dict(zip(header, cells, strict=True)))


def _spread(
    text: str, delimiter: str, waiting: "deque[tuple[int, str] | Flaw]", lines: Iterator[tuple[int, str] | Flaw]
) -> list[str] | None:
    """The cells of a row that goes on in the lines that follow, which are then taken; None, and nothing is taken, where
    its quotes do not close within a reasonable number of them."""
    for taken in range(SPANNED):
        if taken == len(waiting):
            following = next(lines, None)
            if following is None:
                return None
            waiting.append(following)
        line = waiting[taken]
        if isinstance(line, Flaw) or len(text) > LONGEST:
            return None
        text += "\n" + line[1]
        if line[1].count('"') % 2 and (cells := _cells(text, delimiter)) is not None:
            for _ in range(taken + 1):
                waiting.popleft()
            return cells
    return None


def _cells(line: str, delimiter: str) -> list[str] | None:
    """The cells of one row; None where its quotes do not close."""
    if '"' not in line:
        return line.split(delimiter)
    if len(line) > csv.field_size_limit():
        csv.field_size_limit(LONGEST)  # a limit of the whole process, and 128 KiB is shorter than real rows are
    try:
        return next(csv.reader((line,), delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, str] | Flaw]:
    """Lines with their numbers, without their ends; those that are not UTF-8 or have no end are flaws."""
    number = 0
    while line := file.readline(LONGEST):
        number += 1
        where = f"{path.name} line {number}"
        if len(line) == LONGEST and not line.endswith(b"\n"):
            while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield Flaw(where, "is longer than a row can be", f"more than {LONGEST >> 20} MiB")
            continue
        try:
            yield number, line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield Flaw(where, "is not UTF-8", f"at byte {error.start}")


# ---- json


def json_rows(path: Path) -> Rows:
    """The objects of a .jsonl file, of a list, or of the list under "annotations" or the only one under another key."""
    with opened(path) as file:
        beginning = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(0)
        if not beginning:
            raise DataError(f"{path} is empty")
        is_lines = path.suffix.lower() == ".jsonl" or (beginning.startswith(b"{") and _is_lines(file))
        file.seek(0)
        if is_lines:
            yield from _json_lines(file, path)
        elif beginning.startswith(b"{"):
            yield from _json_list_of(_only_list(file, path), file, path)
        elif beginning.startswith(b"["):
            text = _Text(file)
            text.next()
            text.drop(1)
            yield from _json_list(text, path)
            yield from _left(text, path)
        else:
            raise _no_list(path)


def _is_lines(file: BinaryIO) -> bool:
    """Whether what is called .json holds one object a line."""
    while (first := file.readline(LONGEST)).isspace():
        pass
    return first.rstrip(b"\r\n ").endswith(b"}") and first.endswith(b"\n") and file.read(4096).lstrip()[:1] == b"{"


def _json_lines(file: BinaryIO, path: Path) -> Rows:
    for line in _lines(file, path):
        if isinstance(line, Flaw):
            yield line
            continue
        number, text = line
        text = text.removeprefix("\ufeff")
        if not text.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            yield _object(json.loads(text), where)
        except (ValueError, RecursionError):
            yield Flaw(where, "is not JSON", brief(text))


def _object(value: Any, where: str) -> Row | Flaw:
    return Row(where, value) if isinstance(value, dict) else Flaw(where, "is not an object", brief(value))


SEPARATOR = re.compile(r"[\s,:]*")
DECODE = json.JSONDecoder().raw_decode


def _no_list(path: Path) -> DataError:
    return DataError(f'{path} holds neither a list nor {{"annotations": [...]}}; check that it is the data set')


def _only_list(file: BinaryIO, path: Path) -> str:
    """The key of an object's list: "annotations", or the only one. Raises DataError."""
    found = []
    for key, text in _lists(file):
        if key == "annotations":
            return key
        found.append(key)
        deque(_json_list(text, path), maxlen=0)
    if not found:
        raise _no_list(path)
    if len(found) > 1:
        keys = ", ".join(map(brief, found))
        raise DataError(f'{path} holds lists under {keys}, and none under "annotations"; leave the one to read')
    return found[0]


def _json_list_of(wanted: str, file: BinaryIO, path: Path) -> Rows:
    for key, text in _lists(file):
        if key == wanted:
            yield from _json_list(text, path)
        else:
            deque(_json_list(text, path), maxlen=0)
    yield from _left(text, path)


def _lists(file: BinaryIO) -> Iterator[tuple[str, "_Text"]]:
    """The keys of an object under which it has lists, and the text from the list's first element on; whoever asks for
    the next has read it to its end. What is no JSON ends it."""
    file.seek(0)
    text = _Text(file)
    text.next()
    text.drop(1)
    while text.next() == '"':
        try:
            key = text.value()
            if text.next() == "[":
                text.drop(1)
                yield key, text
            else:
                text.value()
        except (ValueError, RecursionError):
            return
    if text.next() == "}":
        text.drop(1)


def _left(text: "_Text", path: Path) -> Rows:
    if text.next():
        detail = brief(text.held[text.at : text.at + 2 * SHOWN])
        yield Flaw(f"{path.name} behind its end", "is not read: something follows the end of the list", detail)


def _json_list(text: "_Text", path: Path) -> Rows:
    """A list's elements one by one. Where one is no JSON, reading goes on at the next that begins as those before."""
    number = 0
    alike: re.Pattern[str] | None = None
    """How an element begins."""
    while True:
        following = text.next()
        number += 1
        where = f"{path.name} row {number}"
        if not following:
            yield Flaw(where, "is missing: the list has no end", "the file was cut off")
            return
        if following == "]":
            text.drop(1)
            return
        try:
            value = text.value()
        except (ValueError, RecursionError):
            yield Flaw(where, "is not JSON", brief(text.held[text.at : text.at + 2 * SHOWN]))
            if not text.skip_to(alike):
                return
            continue
        if isinstance(value, dict) and value and alike is None:
            alike = re.compile(r"[}\],]\s*(\{\s*" + re.escape(json.dumps(next(iter(value)))) + r"\s*:)")
        yield _object(value, where)


class _Text:
    """A file's text of which only the part that is looked at is held. What is no UTF-8 becomes lone surrogates, which
    `words` refuses."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.held = ""
        self.at = 0
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._read = CHUNK

    def more(self) -> bool:
        """Hold more, twice as much each time nothing was dropped; False at the end of the file."""
        data = self.file.read(self._read)
        self._read = min(2 * self._read, LONGEST)
        self.held = self.held[self.at :] + self._decode(data, not data)
        self.at = 0
        return bool(data)

    def drop(self, count: int) -> None:
        self.at += count
        if count:
            self._read = CHUNK

    def next(self) -> str:
        """The character behind spaces and separators, which are dropped; "" at the end of the file."""
        while True:
            self.drop(SEPARATOR.match(self.held, self.at).end() - self.at)  # type: ignore[union-attr]
            if self.at < len(self.held) or not self.more():
                return self.held[self.at : self.at + 1]

    def value(self) -> Any:
        """The JSON that is next, which is dropped. Raises ValueError or RecursionError where it is none."""
        while True:
            try:
                value, end = DECODE(self.held, self.at)
            except (ValueError, RecursionError):
                if len(self.held) - self.at >= LONGEST or not self.more():
                    raise
                continue
            if end == len(self.held) and self.more():
                continue  # a number may go on in what was not read yet
            self.drop(end - self.at)
            return value

    def skip_to(self, beginning: "re.Pattern[str] | None") -> bool:
        """Whether there is something more that begins like this; then it is next."""
        found = None
        while beginning is not None and found is None:
            found = beginning.search(self.held, self.at + 1)
            if found is None:
                self.at = max(self.at, len(self.held) - 256)
                if not self.more():
                    break
        self.at = found.start(1) if found else len(self.held)
        return found is not None


# ---- parquet


def parquet_rows(path: Path) -> Rows:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(
            f"{path} needs pyarrow to be read; install it with: pip install 'minigpt4-video[data]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path.name} row {number}", values)
    except (OSError, ValueError) as error:  # pyarrow's own errors are among them
        raise DataError(f"{path} is not a parquet file that can be read, or is damaged: {brief(str(error))}") from error
