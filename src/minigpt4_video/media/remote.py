"""Videos named by an address: fetched under rules to a file, never handed to the decoder as an address."""

import http.client
import io
import ipaddress
import re
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit

from minigpt4_video.errors import MediaError
from minigpt4_video.media.sources import check_file, shown

PORTS = {"http": 80, "https": 443}
REDIRECTS = {301, 302, 303, 307, 308}
MOST_REDIRECTS = 5
PIECE = 1 << 18
LONGEST_SILENCE = 30.0  # seconds
MOST_SHOWN = 120  # characters of an address in a message
CONTROLS = dict.fromkeys((*range(32), 127), "?")

# The public part of IPv6; what lies outside it carries IPv4 addresses, is local, or is not given out.
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
# Addresses within the public parts that carry another one, of which nothing tells where it leads, or serve protocols.
NOT_PUBLIC = [ipaddress.ip_network(block) for block in ("2002::/16", "2001::/32", "192.0.0.0/24", "192.88.99.0/24")]


@dataclass(frozen=True)
class SourceRules:
    """What may be named as a source. The default is for files only, wherever they are."""

    hosts: tuple[str, ...] | None = ()
    """Hosts from which http(s) addresses are fetched, as "example.org", "example.org:8080" or, for all hosts under it,
    ".example.org"; None for every one."""
    folders: tuple[Path, ...] | None = None
    """Folders in which files must lie, links followed; None for every one."""
    largest: int = 2 * 2**30
    """Bytes."""
    seconds: float = 300.0
    """For fetching."""


@contextmanager
def source_file(source: str | PathLike[str], rules: SourceRules) -> Iterator[Path]:
    """A file with what `source`, a path or an http(s) address, names; one that was fetched is deleted afterwards.

    A host's name is resolved once and the connection goes to an address that was checked; addresses that are not public
    are refused, on every redirect too. Raises `MediaError` for what the rules do not allow and what cannot be had. A
    `MediaError` about a fetched file names the address in the file's place.
    """
    if isinstance(source, str) and is_address(source):
        with tempfile.TemporaryDirectory(prefix="minigpt4-video-") as folder:
            suffix = Path(_checked(source, rules).path).suffix
            file = Path(folder) / f"video{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,5}', suffix) else ''}"
            with file.open("wb") as opened:
                fetch(source, rules, opened)
            try:
                yield file
            except MediaError as error:
                raise MediaError(str(error).replace(shown(file), _named(source))) from error
    else:
        yield _allowed_file(Path(source), rules)


def is_address(source: str) -> bool:
    """Whether it is written as an address, of whatever protocol, and so names no file."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def _allowed_file(file: Path, rules: SourceRules) -> Path:
    """The path with links followed, so that what was checked is what is opened."""
    if rules.folders is not None:
        try:
            resolved = file.resolve()
            folders = [folder.resolve() for folder in rules.folders]
        except (OSError, RuntimeError, ValueError) as error:
            raise MediaError(f"There is no file {shown(file)}; check its name and folder.") from error
        if not any(resolved.is_relative_to(folder) for folder in folders):
            raise MediaError(f"{shown(file)} lies in no folder from which files may be read; put it into one of them.")
        file = resolved
    if check_file(file, "a video").stat().st_size > rules.largest:
        raise MediaError(f"{shown(file)} is larger than the {rules.largest} bytes that are allowed; make it shorter.")
    return file


def fetch(
    url: str, rules: SourceRules, into: BinaryIO, *, headers: Mapping[str, str] | None = None, part: int | None = None
) -> None:
    """Append what an http(s) address names to a file, under the rules; `part` asks for so many bytes at a time."""
    deadline = time.monotonic() + rules.seconds
    while True:
        begin = into.tell()
        asked = {} if part is None else {"Range": f"bytes={begin}-{begin + part - 1}"}
        whole = _fetch_once(url, rules, into, {**(headers or {}), **asked}, deadline)
        if into.tell() >= whole:
            return
        if into.tell() == begin:
            raise MediaError(f"{_named(url)} broke off; try again, or download it and name the file.")


def _fetch_once(url: str, rules: SourceRules, into: BinaryIO, headers: Mapping[str, str], deadline: float) -> int:
    """What is at an address, wherever it redirects to; gives the length of the whole, of which a part was asked for."""
    for _ in range(MOST_REDIRECTS + 1):
        parts = _checked(url, rules)
        try:
            with _connected(parts, rules, deadline) as connection:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                sent = {"Accept-Encoding": "identity", "User-Agent": "minigpt4-video", **headers}
                connection.request("GET", target, headers=sent)
                answer = connection.getresponse()
                if answer.status not in REDIRECTS:
                    return _take(answer, url, rules, into, "Range" in headers)
                following = urljoin(url, answer.headers.get("Location", ""))
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= deadline:
                raise MediaError(
                    f"{_named(url)} took longer than {rules.seconds:g} s; download it and name the file."
                ) from error
            raise MediaError(f"{_named(url)} cannot be fetched; check the address and the network.") from error
        if parts.scheme == "https" and not following.startswith("https:"):
            raise MediaError(f"{_named(url)} redirects to an address without encryption; name the final address.")
        url = following
    raise MediaError(f"{_named(url)} redirects more than {MOST_REDIRECTS} times; name the final address.")


def _checked(url: str, rules: SourceRules) -> SplitResult:
    """The address in pieces, where it is one of a host that is allowed."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise MediaError(f"{_named(url)} is not an address that can be fetched; write its characters as %XX.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise MediaError(f"{_named(url)} is not an address that can be fetched; check how it is written.") from error
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None or parts.password is not None:
        raise MediaError(
            f"{_named(url)} is not an http or https address without a password; name such a one or a file."
        )
    host = parts.hostname.rstrip(".").lower()
    if rules.hosts is not None:
        spellings = {f"{host}:{port or PORTS[parts.scheme]}"}
        if port in (None, PORTS[parts.scheme]):
            spellings |= {host} | {host[place:] for place, letter in enumerate(host) if letter == "."}
        if not spellings & {allowed.lower() for allowed in rules.hosts}:
            raise MediaError(f"Videos are not fetched from {host}; name a file, or a host that is allowed.")
    return parts


@contextmanager
def _connected(parts: SplitResult, rules: SourceRules, deadline: float) -> Iterator[http.client.HTTPConnection]:
    """A connection to an address that was checked; the name is not resolved again."""
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not addresses or not all(_is_public(address) for address in addresses):
        raise MediaError(f"{_named(parts.geturl())} has no public address on the internet; name a file, or another.")
    connection = http.client.HTTPConnection(host, port)
    with _first_that_answers(addresses, port, deadline) as plain:
        if parts.scheme == "https":
            with ssl.create_default_context().wrap_socket(plain, server_hostname=host) as encrypted:
                connection.sock = _Timed(encrypted, deadline)
                yield connection
        else:
            connection.sock = _Timed(plain, deadline)
            yield connection


def _first_that_answers(addresses: list[str], port: int, deadline: float) -> socket.socket:
    for address in addresses[:-1]:
        try:
            return socket.create_connection((address, port), timeout=_left(deadline))
        except OSError:
            continue  # as where a host has an IPv6 address and this machine's network has none
    return socket.create_connection((addresses[-1], port), timeout=_left(deadline))


def _left(deadline: float) -> float:
    """Seconds for which may be waited at once."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for fetching is over")
    return min(LONGEST_SILENCE, left)


class _Timed:
    """What http.client uses of a socket; all waiting ends at the deadline, however little comes at a time."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._connected = connected
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._connected.settimeout(_left(self._deadline))
        self._connected.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._connected, self._deadline))

    def close(self) -> None:
        """The connection is closed by whoever opened it."""


class _TimedReader(io.RawIOBase):
    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._connected = connected
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connected.settimeout(_left(self._deadline))
        return self._connected.recv_into(buffer)


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found not in PUBLIC_IPV6:
            return False
    return found.is_global and not found.is_multicast and not any(found in block for block in NOT_PUBLIC)


def _take(answer: http.client.HTTPResponse, url: str, rules: SourceRules, into: BinaryIO, asked_part: bool) -> int:
    """Append an answer's bytes to a file; gives the length of the whole, as far as it is told."""
    begin = into.tell()
    span = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", answer.headers.get("Content-Range", ""))
    is_part = asked_part and answer.status == 206 and span is not None and int(span[1]) == begin
    if not is_part and (answer.status != 200 or begin):
        raise MediaError(f"{_named(url)} cannot be fetched (status {answer.status}); check the address.")
    whole = int(span[2]) if is_part and span is not None else begin + (answer.length or 0)
    taken = whole
    while taken <= rules.largest:
        piece = answer.read1(PIECE)
        if not piece:
            if answer.length:
                raise MediaError(f"{_named(url)} broke off; try again, or download it and name the file.")
            return whole if is_part else into.tell()
        into.write(piece)
        taken = max(taken, into.tell())
    raise MediaError(f"{_named(url)} is larger than the {rules.largest} bytes that are allowed; name a shorter one.")


def _named(url: str) -> str:
    """The address as it can stand in a message: without a password and its query, which may hold a secret."""
    without_query = re.split(r"[?#]", url)[0]
    without_password = re.sub(r"^([^/]*//)[^/]*@", r"\1", without_query)
    return without_password.encode("ascii", "backslashreplace").decode()[:MOST_SHOWN].translate(CONTROLS)
