"""Downloads from a server on this machine that behaves as well or as badly as a test asks."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minibert.corpora.download import ATTEMPTS, cache_folder, fetch, file_digest
from minibert.errors import DownloadError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT under any path.

    Attributes:
        ranges: Whether ``Range`` is understood.
        cut_after: Bytes after which each of the first answers breaks off.
        status: Answered in place of the file, one for each of the first requests.
        asked: The ``Range`` header of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.shift = CONTENT, True, 0
        self.cut_after: list[int] = []
        self.status: list[int] = []
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status:
            self.send_error(server.status.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if wanted and server.ranges and start >= len(server.content):
            self.send_error(416)
            return
        part = server.content[start:]
        self.send_response(206 if wanted and server.ranges else 200)
        if wanted and server.ranges:
            first = start + server.shift
            self.send_header("Content-Range", f"bytes {first}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a client that hangs up is part of the test
            self.wfile.write(part[: server.cut_after.pop(0)] if server.cut_after else part)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class' name
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.bin"


def fetched(server: Server, target: Path, **options) -> Path:
    return fetch(server.url, target, md5=MD5, timeout_seconds=10, pause_seconds=0, **options)


def part_of(target: Path) -> Path:
    return target.with_name("file.bin.part")


def begin(target: Path, content: bytes) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(content)


def test_a_file_comes_whole_and_only_once(server, target):
    assert fetched(server, target) == target
    assert target.read_bytes() == CONTENT
    fetched(server, target)
    assert server.asked == [None]
    assert sorted(p.name for p in target.parent.iterdir()) == ["file.bin", "file.bin.lock"]


def test_a_begun_download_is_taken_up(server, target):
    begin(target, CONTENT[:1000])
    assert fetched(server, target).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_whole_part_is_recognized(server, target):
    begin(target, CONTENT)
    assert fetched(server, target).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_server_that_ignores_ranges_starts_anew(server, target):
    server.ranges = False
    begin(target, CONTENT[:1000])
    assert fetched(server, target).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


@pytest.mark.parametrize("content", [b"x" * 1000, b"x" * (len(CONTENT) + 5)])
def test_a_part_of_something_else_is_thrown_away(server, target, content):
    begin(target, content)
    assert fetched(server, target).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(content)}-", None]


def test_a_connection_that_breaks_is_taken_up(server, target):
    server.cut_after = [5000, 300_000, 0]
    assert fetched(server, target).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=5000-", "bytes=305000-", "bytes=305000-"]


def test_a_connection_that_breaks_for_ever_leaves_what_came(server, target):
    server.cut_after = [1000] * 2 * ATTEMPTS
    with pytest.raises(DownloadError, match=r"cannot be fetched \(the connection was cut\); give a local copy with"):
        fetched(server, target)
    assert part_of(target).read_bytes() == CONTENT[: 1000 * ATTEMPTS]
    assert not target.exists()
    server.cut_after = []
    assert fetched(server, target).read_bytes() == CONTENT


def test_a_range_that_was_not_asked_for_is_not_taken(server, target):
    server.shift = 7
    begin(target, CONTENT[:1000])
    with pytest.raises(DownloadError, match="bytes from 1000 on were asked for, others came"):
        fetched(server, target)
    assert part_of(target).read_bytes() == CONTENT[:1000]


def test_a_wrong_checksum_leaves_nothing(server, target):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(DownloadError, match=f"MD5 {MD5} is required, but what came has another") as raised:
        fetched(server, target)
    assert "\n" not in str(raised.value)
    assert not target.exists()
    assert not part_of(target).exists()
    assert server.asked == [None]


def test_a_damaged_file_in_the_cache_is_fetched_again(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1] + b"?")
    assert fetched(server, target).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refusal_is_final(server, target, status):
    server.status = [status]
    with pytest.raises(DownloadError, match=rf"cannot be fetched \(HTTP {status} .*\); give a local copy with --data"):
        fetched(server, target)
    assert len(server.asked) == 1
    assert not target.exists()


def test_a_busy_server_is_asked_again(server, target):
    server.status = [503, 500]
    assert fetched(server, target).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_no_server_at_all_is_an_error_at_once(server, target):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match=r"cannot be fetched .* give a local copy with --data"):
        fetch(url, target, md5=MD5, pause_seconds=100)


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(DownloadError, match=r"file\.bin: cannot be written: .*; MINIBERT_CACHE names another folder"):
        fetched(server, tmp_path / "file" / "file.bin")


@pytest.mark.parametrize("name", ["file.bin", "file.bin.part"])
def test_a_file_that_cannot_be_read_is_named_as_such(name, server, target, monkeypatch):
    begin(target, CONTENT)
    (target.parent / name).write_bytes(CONTENT)
    opened = Path.open

    def unreadable(self, mode="r", *args, **kwargs):
        if self.name == name and mode == "rb":
            raise PermissionError(13, "Permission denied")
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", unreadable)
    with pytest.raises(DownloadError) as raised:
        fetched(server, target)
    message = f"{target.parent / name}: cannot be read: Permission denied; MINIBERT_CACHE names another folder"
    assert str(raised.value) == message


def test_a_full_disk_is_named(server, target, monkeypatch):
    class FullDisk:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def write(self, block):
            raise OSError(28, "No space left on device")

    opened = Path.open

    def full(self, mode="r", *args, **kwargs):
        return FullDisk() if self == part_of(target) and mode == "wb" else opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DownloadError, match=r"file\.bin: cannot be written: No space left on device"):
        fetched(server, target)
    assert not target.exists()


def test_two_at_a_time_download_once(server, target):
    with ThreadPoolExecutor(2) as pool:
        for found in [pool.submit(fetched, server, target) for _ in range(2)]:
            assert found.result() == target
    assert server.asked == [None]


def test_progress_counts_all_bytes(server, target):
    tasks = []

    class Recorder:
        def start(self, description, total=None):
            tasks.append([description, total, 0, "open"])
            return self

        def advance(self, n=1):
            tasks[-1][2] += n

        def finish(self):
            tasks[-1][3] = "done"

    begin(target, CONTENT[:1000])
    server.cut_after = [500]
    fetched(server, target, progress=Recorder())
    assert tasks == [
        ["download file.bin (bytes)", len(CONTENT), 1500, "done"],
        ["download file.bin (bytes)", len(CONTENT), len(CONTENT), "done"],
    ]


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("MINIBERT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "minibert"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "minibert"
    monkeypatch.setenv("MINIBERT_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"


def test_file_digest_is_that_of_the_content(tmp_path):
    (tmp_path / "x").write_bytes(CONTENT)
    assert file_digest(tmp_path / "x", "sha256") == hashlib.sha256(CONTENT).hexdigest()
