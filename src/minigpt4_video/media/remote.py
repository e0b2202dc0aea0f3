"""Videos named by an address: fetched under rules to a file, never handed to the decoder as an address."""

import http.client
import ipaddress
import re
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit

from minigpt4_video.errors import MediaError
from minigpt4_video.media.sources import check_file, shown

PORTS = {"http": 80, "https": 443}
REDIRECTS = {301, 302, 303, 307, 308}
MOST_REDIRECTS = 5
PIECE = 1 << 18
# Addresses that carry another one, of which nothing tells where it leads.
TRANSLATED = [ipaddress.ip_network(block) for block in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]


@dataclass(frozen=True)
class SourceRules:
    """What may be named as a source. The default is for files only, wherever they are."""

    hosts: tuple[str, ...] | None = ()
    """Hosts from which http(s) addresses are fetched, as "example.org" or "example.org:8080"; None for every one."""
    folders: tuple[Path, ...] | None = None
    """Folders in which files must lie, links followed; None for every one."""
    largest: int = 2 * 2**30
    """Bytes."""
    seconds: float = 300.0
    """For fetching."""


@contextmanager
def source_file(source: str | PathLike[str], rules: SourceRules) -> Iterator[Path]:
    """A file with what `source`, a path or an http(s) address, names; one that was fetched is deleted afterwards.

    A host's name is resolved once and the connection goes to that address; addresses that are not public are refused,
    on every redirect too. Raises `MediaError` for what the rules do not allow and what cannot be had.
    """
    if isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        with tempfile.TemporaryDirectory(prefix="minigpt4-video-") as folder:
            suffix = Path(_checked(source, rules).path).suffix
            file = Path(folder) / f"video{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,5}', suffix) else ''}"
            with file.open("wb") as opened:
                _fetch(source, rules, opened)
            yield file
    else:
        yield _allowed_file(Path(source), rules)


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


def _fetch(url: str, rules: SourceRules, into: BinaryIO) -> None:
    deadline = time.monotonic() + rules.seconds
    for _ in range(MOST_REDIRECTS + 1):
        parts = _checked(url, rules)
        try:
            with _connected(parts, rules, deadline) as connection:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request(
                    "GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "minigpt4-video"}
                )
                answer = connection.getresponse()
                if answer.status not in REDIRECTS:
                    _take(answer, parts, rules, into, deadline)
                    return
                following = urljoin(url, answer.headers.get("Location", ""))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MediaError(f"{_named(parts)} cannot be fetched; check the address and the network.") from error
        if parts.scheme == "https" and not following.startswith("https:"):
            raise MediaError(f"{_named(parts)} redirects to an address without encryption; name the final address.")
        url = following
    raise MediaError(f"{url[:80]!a} redirects more than {MOST_REDIRECTS} times; name the final address.")


def _checked(url: str, rules: SourceRules) -> SplitResult:
    """The address in pieces, where it is one of a host that is allowed."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise MediaError(f"{url[:80]!a} is not an address that can be fetched; write its characters as %XX.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise MediaError(f"{url[:80]!a} is not an address that can be fetched; check how it is written.") from error
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None or parts.password is not None:
        raise MediaError(f"{url[:80]!a} is not an http or https address without a password; name such a one or a file.")
    host = parts.hostname.rstrip(".").lower()
    if rules.hosts is not None:
        spellings = {f"{host}:{port or PORTS[parts.scheme]}"}
        spellings |= {host} if port in (None, PORTS[parts.scheme]) else set()
        if not spellings & {allowed.lower() for allowed in rules.hosts}:
            raise MediaError(f"Videos are not fetched from {host}; name a file, or a host that is allowed.")
    return parts


@contextmanager
def _connected(parts: SplitResult, rules: SourceRules, deadline: float) -> Iterator[http.client.HTTPConnection]:
    """A connection to the one address that was checked; the name is not resolved again."""
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(_is_public(address) for address in addresses):
        raise MediaError(f"{_named(parts)} has no public address on the internet; name a file, or another address.")
    left = max(1.0, min(30.0, deadline - time.monotonic()))
    connection = http.client.HTTPConnection(host, port, timeout=left)
    with socket.create_connection((addresses[0], port), timeout=left) as plain:
        if parts.scheme == "https":
            with ssl.create_default_context().wrap_socket(plain, server_hostname=host) as encrypted:
                connection.sock = encrypted
                yield connection
        else:
            connection.sock = plain
            yield connection


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif any(found in block for block in TRANSLATED):
            return False
    return found.is_global and not found.is_multicast


def _take(
    answer: http.client.HTTPResponse, parts: SplitResult, rules: SourceRules, into: BinaryIO, deadline: float
) -> None:
    if answer.status != 200:
        raise MediaError(f"{_named(parts)} cannot be fetched (status {answer.status}); check the address.")
    taken = answer.length or 0
    while taken <= rules.largest:
        if time.monotonic() > deadline:
            raise MediaError(f"{_named(parts)} took longer than {rules.seconds:g} s; download it and name the file.")
        piece = answer.read1(PIECE)
        if not piece:
            if answer.length:
                raise MediaError(f"{_named(parts)} broke off; try again, or download it and name the file.")
            return
        into.write(piece)
        taken = max(taken, into.tell())
    raise MediaError(f"{_named(parts)} is larger than the {rules.largest} bytes that are allowed; name a shorter one.")


def _named(parts: SplitResult) -> str:
    """The address as it can stand in a message: without its query, which may hold a secret."""
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
