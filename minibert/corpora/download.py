"""One file from the web into the cache folder: resumed, checked, and there whole or not at all.

    fetch(url, cache_folder() / "aclImdb_v1.tar.gz", md5="7c2a...") -> the path

What has come so far stands in ``<name>.part`` until its checksum is right; then it is renamed. A
broken connection, Ctrl-C or a reboot costs what was not yet written. Only the standard library is
used: `pooch`, the usual choice, cannot resume, and the rule for the folder is one line.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minibert.artifacts import locked
from minibert.errors import DownloadError

ATTEMPTS = 5
"""Times that a broken connection is taken up again."""
_BLOCK_BYTES = 2**18
_USE_DATA = "give a local copy with --data"


def cache_folder() -> Path:
    """Where downloads go: ``MINIBERT_CACHE``, else ``XDG_CACHE_HOME/minibert``, else ``~/.cache/minibert``.

    The same rule on every system, so that one page describes it. The folder need not exist.
    """
    own = os.environ.get("MINIBERT_CACHE")
    if own:
        return Path(own).expanduser()
    general = os.environ.get("XDG_CACHE_HOME")
    return (Path(general) if general else Path.home() / ".cache") / "minibert"


def fetch(
    url: str, target: Path, *, md5: str, progress: Any = None, timeout_seconds: float = 30.0, pause_seconds: float = 2.0
) -> Path:
    """Gives the file, downloaded if it is not there or not as published.

    Args:
        url: Where it is published.
        target: Where it shall stand; its folder is made.
        md5: Its published checksum, in hexadecimal.
        progress: Has ``start(description, total)``, in bytes; None: silent.
        timeout_seconds: Longest silence of the server.
        pause_seconds: Wait before the second attempt; doubled before each later one.

    Raises:
        DownloadError: The server refuses, stays unreachable, sends something else, or the disk is
            full. What came is kept for the next time, unless it is wrong.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # One process at a time downloads; where the system has no locks, the checksum protects.
        with locked(target.with_name(target.name + ".lock"), wait=True):
            if target.exists() and _has_digest(target, md5):
                return target
            part = target.with_name(target.name + ".part")
            if not _download_checked(url, part, md5, progress, timeout_seconds, pause_seconds):
                raise DownloadError(f"{url}: MD5 {md5} is required, but what came has another; {_USE_DATA}")
            part.replace(target)
    except OSError as error:
        raise DownloadError(f"{target}: cannot be written: {error.strerror or error}; MINIBERT_CACHE names "
                            "another folder") from None  # fmt: skip
    return target


def file_digest(path: Path, algorithm: str) -> str:
    """A file's checksum in hexadecimal."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _has_digest(path: Path, md5: str) -> bool:
    """Whether a file is what was published; one that cannot be read is named here, before it is said of the folder."""
    try:
        return file_digest(path, "md5") == md5
    except OSError as error:
        raise DownloadError(f"{path}: cannot be read: {error.strerror or error}; MINIBERT_CACHE names "
                            "another folder") from None  # fmt: skip


def _download_checked(
    url: str, part: Path, md5: str, progress: Any, timeout_seconds: float, pause_seconds: float
) -> bool:
    """Fills the part file; once more from the start where what an earlier time left does not fit."""
    for _ in range(2):
        continued = part.exists() and part.stat().st_size > 0
        _download(url, part, progress, timeout_seconds, pause_seconds)
        if _has_digest(part, md5):
            return True
        part.unlink()
        if not continued:
            break
    return False


def _download(url: str, part: Path, progress: Any, timeout_seconds: float, pause_seconds: float) -> None:
    """Fills the part file, taking it up where it ends as often as the connection breaks."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause_seconds * 2 ** (attempt - 1))
        try:
            if _receive(url, part, progress, timeout_seconds):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code < 500:
                break
        except urllib.error.URLError as error:
            reason = str(error.reason)
            if not attempt:  # No network or no such server: waiting would not help.
                break
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
    raise DownloadError(f"{url}: cannot be fetched ({reason}); {_USE_DATA}")


def _receive(url: str, part: Path, progress: Any, timeout_seconds: float) -> bool:
    """One request; whether all came that the server announced."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "minibert", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout_seconds)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # Nothing is left after `start`: whole, or not this file. MD5 tells.
            return True
        raise
    with response:
        if response.status == 206 and _range_start(response) != start:
            raise http.client.HTTPException(f"bytes from {start} on were asked for, others came")
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        expected = None if length is None else int(length) + (start if resumed else 0)
        task = progress.start(f"download {part.name.removesuffix('.part')} (bytes)", expected) if progress else None
        if task and resumed:
            task.advance(start)
        try:
            with part.open("ab" if resumed else "wb") as file:
                for block in _blocks(response):
                    file.write(block)
                    if task:
                        task.advance(len(block))
        finally:
            if task:
                task.finish()
    return expected is None or part.stat().st_size == expected


def _blocks(response: Any) -> Iterator[bytes]:
    """What the server sends; its errors are told apart from those of the disk."""
    while True:
        try:
            block = response.read(_BLOCK_BYTES)
        except OSError as error:
            raise http.client.HTTPException(str(error)) from None
        if not block:
            return
        yield block


def _range_start(response: Any) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else None
