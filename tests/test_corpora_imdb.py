"""The IMDb reader: archive, folder and download give one corpus; what is damaged or hostile is refused."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import random
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minibert.artifacts import locked
from minibert.corpora import Corpus, imdb, imdb_archive, open_corpus
from minibert.corpora.imdb_archive import open_archive
from minibert.errors import CorpusError, DownloadError
from minibert.settings import CorpusSettings

FILES = {
    f"{split}/{name}/{number}_{rating}.txt": f"{split} {name} review {number}: café<br /><br />seen {rating} times"
    for split in ("train", "test")
    for name, ratings in (("pos", (7, 10)), ("neg", (1, 4)))
    for number in (0, 2, 10, 100)
    for rating in ratings[: 1 + (number == 2)]
}
EXTRAS = {"README": "read me", "imdb.vocab": "the", "train/unsup/0_0.txt": "no label", "train/pos/.DS_Store": "x",
          "train/urls_pos.txt": "http://"}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The archive on a server of this machine, as if it were the published one."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    site = tmp_path / "site"
    site.mkdir()
    archive = write_archive(site / "aclImdb_v1.tar.gz")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(imdb, "ARCHIVE_URL", f"http://127.0.0.1:{server.server_address[1]}/aclImdb_v1.tar.gz")
        monkeypatch.setattr(imdb, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
        yield archive
        server.shutdown()
        thread.join()


def member(name: str, content: bytes = b"x", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def members(files: dict[str, str], top: str = "aclImdb/") -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member(top + name, text.encode()) for name, text in files.items()]


def tar_bytes(parts: list[tuple[tarfile.TarInfo, bytes]], *, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
        for info, content in parts:
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def write_archive(path: Path, parts: list[tuple[tarfile.TarInfo, bytes]] | None = None) -> Path:
    whole = members({**FILES, **EXTRAS}) if parts is None else parts
    path.write_bytes(gzip.compress(tar_bytes(whole), mtime=0))
    return path


def write_folder(path: Path, files: dict[str, str] | None = None) -> Path:
    for name, text in ({**FILES, **EXTRAS} if files is None else files).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(text.encode())
    return path


def opened(data: Path | None, **settings) -> Corpus:
    return open_corpus(CorpusSettings(name="imdb", **settings), seed=0, data=data)


def texts(corpus: Corpus, split: str) -> list[tuple[str, int]]:
    return [pair for b in corpus.batches(split) for pair in zip(b.texts.to_pylist(), b.labels.tolist(), strict=True)]


def expected(split: str) -> list[tuple[str, int]]:
    """By hand: pos before neg, then number, then rating; positive is 0."""
    keyed = []
    for name, text in FILES.items():
        of_split, folder, file = name.split("/")
        number, rating = map(int, file.removesuffix(".txt").split("_"))
        if of_split == split:
            keyed.append((folder == "neg", number, rating, text))
    return [(text, int(negative)) for negative, _, _, text in sorted(keyed)]


def test_archive_is_read_in_order_with_the_notebooks_labels(tmp_path):
    corpus = opened(write_archive(tmp_path / "aclImdb_v1.tar.gz"))
    assert (corpus.name, corpus.class_names) == ("imdb", ("positive", "negative"))
    assert corpus.examples == {"train": 10, "test": 10}
    assert corpus.source == str(tmp_path / "aclImdb_v1.tar.gz")
    for split in ("train", "test"):
        assert texts(corpus, split) == expected(split)


def test_archive_folder_and_parent_folder_are_one_corpus(tmp_path):
    folder = write_folder(tmp_path / "unpacked" / "aclImdb")
    assert texts(opened(folder), "train") == expected("train")
    digests = {opened(data).digest for data in (folder, folder.parent, write_archive(tmp_path / "a.tgz"))}
    assert len(digests) == 1


@pytest.mark.parametrize("top", ["aclImdb/", "./aclImdb/", "", "./"])
def test_order_format_and_top_folder_of_the_archive_do_not_matter(top, tmp_path):
    reference = opened(write_archive(tmp_path / "reference.tar.gz")).digest
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)):
        shuffled = members({**FILES, **EXTRAS}, top)
        random.Random(number).shuffle(shuffled)
        path = tmp_path / f"{number}.tar.gz"
        path.write_bytes(gzip.compress(tar_bytes(shuffled, format=form)))
        assert opened(path).digest == reference


def test_an_archive_made_from_a_folder_by_tarfile_is_read(tmp_path):
    folder = write_folder(tmp_path / "aclImdb")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(folder, "aclImdb")
    assert opened(tmp_path / "a.tar.gz").digest == opened(folder).digest


def test_numbers_of_examples_are_honoured(tmp_path):
    archive, folder = write_archive(tmp_path / "a.tar.gz"), write_folder(tmp_path / "aclImdb")
    corpus = opened(archive, train_examples=4, test_examples=2)
    assert corpus.examples == {"train": 4, "test": 2}
    assert [label for _, label in texts(corpus, "train")] == [0, 0, 1, 1]
    assert set(texts(corpus, "train")) < set(expected("train"))
    assert corpus.digest == opened(folder, train_examples=4, test_examples=2).digest


def test_the_positive_label_is_a_setting_of_folder_archive_and_download(tmp_path, published):
    """Only labels and names change: the texts, their order and the choice of a part are the notebook's."""
    archive, folder = write_archive(tmp_path / "a.tar.gz"), write_folder(tmp_path / "aclImdb")
    for data in (archive, folder, None):
        for part in ({}, {"train_examples": 4, "test_examples": 3}):
            notebook, other = opened(data, **part), opened(data, positive_label=1, **part)
            assert (notebook.class_names, other.class_names) == (("positive", "negative"), ("negative", "positive"))
            for split in ("train", "test"):
                flipped = [(text, 1 - label) for text, label in texts(notebook, split)]
                assert texts(other, split) == flipped
            assert other.digest != notebook.digest
    assert len({opened(data, positive_label=1).digest for data in (archive, folder, None)}) == 1
    assert opened(archive, positive_label=0).digest == opened(archive).digest


def test_one_training_example_is_refused(tmp_path):
    for data in (write_archive(tmp_path / "a.tar.gz"), write_folder(tmp_path / "aclImdb")):
        with pytest.raises(CorpusError, match=f"^{data}: two classes are required in the train split, but one came"):
            opened(data, train_examples=1)
        assert opened(data, train_examples=2, test_examples=1).examples == {"train": 2, "test": 1}


def test_batches_do_not_cross_splits_and_do_not_matter(tmp_path, monkeypatch):
    reference = opened(write_archive(tmp_path / "a.tar.gz")).digest
    monkeypatch.setattr(imdb_archive, "BATCH_ROWS", 3)
    monkeypatch.setattr(imdb, "BATCH_ROWS", 4)
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "other"))
    corpus = opened(tmp_path / "a.tar.gz")
    assert [len(batch.texts) for batch in corpus.batches("train")] == [3, 3, 3, 1]
    assert corpus.digest == reference == opened(write_folder(tmp_path / "aclImdb")).digest


# The cached file.


def test_an_archive_is_parsed_once(tmp_path, cache, monkeypatch):
    archive = write_archive(tmp_path / "a.tar.gz")
    first = opened(archive)
    (cached,) = cache.glob("*.arrow")
    assert cached.stem.endswith(first.digest)
    monkeypatch.setattr(imdb_archive, "_sort_into", None)
    assert opened(archive).digest == first.digest
    assert texts(opened(archive.rename(tmp_path / "renamed.tar.gz")), "test") == expected("test")


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "other"])
def test_a_damaged_cached_file_is_made_anew(damage, tmp_path, cache):
    archive = write_archive(tmp_path / "a.tar.gz")
    first = opened(archive)
    (cached,) = cache.glob("*.arrow")
    content = cached.read_bytes()
    cached.write_bytes({
        "truncated": content[:-300],
        "changed": content.replace(b"review 10:", b"review 11:"),
        "empty": b"",
        "other": b"ARROW1\0\0" + b"x" * 100,
    }[damage])  # fmt: skip
    again = opened(archive)
    assert again.digest == first.digest
    assert texts(again, "train") == expected("train")
    assert [path.name for path in cache.iterdir()] == [cached.name]


def test_what_killed_processes_left_is_removed_and_a_download_is_kept(tmp_path, cache):
    cache.mkdir()
    for name in (f"imdb-{'0' * 32}.abc.part", "imdb-other.part", "aclImdb_v1.tar.gz.part", "mine.part"):
        (cache / name).write_bytes(b"half")
    opened(write_archive(tmp_path / "a.tar.gz"))
    kept = {path.name for path in cache.iterdir() if path.suffix != ".arrow"}
    assert kept == {"aclImdb_v1.tar.gz.part", "mine.part"}


def test_where_there_are_no_locks_the_part_of_another_process_is_left_alone(tmp_path, cache, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def none_here(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none_here)
    cache.mkdir()
    part = cache / "imdb-another.part"
    part.write_bytes(b"half")
    opened(write_archive(tmp_path / "a.tar.gz"))
    assert part.exists()


def test_one_process_at_a_time_reads_an_archive_and_the_next_finds_it_cached(tmp_path, cache, monkeypatch):
    cache.mkdir()
    read, sort_into = [], imdb_archive._sort_into
    monkeypatch.setattr(imdb_archive, "_sort_into", lambda *given: read.append(1) or sort_into(*given))
    archive = write_archive(tmp_path / "a.tar.gz")
    others = [threading.Thread(target=opened, args=(archive,)) for _ in range(2)]
    with locked(cache, wait=False):
        for other in others:
            other.start()
        others[0].join(0.2)
        assert not read
    for other in others:
        other.join()
    assert len(read) == 1


def test_a_damaged_cached_file_that_another_process_has_removed_is_made_anew(tmp_path, cache, monkeypatch):
    archive = write_archive(tmp_path / "a.tar.gz")
    digest = opened(archive).digest
    monkeypatch.setattr(imdb_archive, "_checked_reader", lambda cached, _: cached.unlink())
    assert opened(archive).digest == digest


def test_nothing_of_an_archive_is_left_when_it_is_refused(tmp_path, cache):
    archive = write_archive(tmp_path / "a.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(CorpusError):
        opened(archive)
    assert list(cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CorpusError, match="cannot be written: Not a directory; MINIBERT_CACHE names another folder"):
        opened(write_archive(tmp_path / "a.tar.gz"))


def test_an_archive_that_cannot_be_read_is_named_and_not_the_cache_folder(tmp_path, cache, monkeypatch):
    class Broken(gzip.GzipFile):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    archive = write_archive(tmp_path / "a.tar.gz")
    monkeypatch.setattr(imdb_archive.gzip, "open", Broken)
    with pytest.raises(CorpusError, match=r"^.*/a\.tar\.gz: cannot be read: Input/output error$"):
        opened(archive)
    assert list(cache.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, cache, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(imdb_archive, "_write_sorted", full)
    with pytest.raises(CorpusError, match="cannot be written: No space left on device"):
        opened(write_archive(tmp_path / "a.tar.gz"))
    assert list(cache.iterdir()) == []


# Archives that are refused: members added behind the good ones, and the message.
HOSTILE = {
    "absolute": (member("/etc/passwd"), "members inside the folder are required, but '/etc/passwd' came"),
    "parent": (member("aclImdb/../../up.txt"), "members inside the folder are required, but 'aclImdb/../../up.txt'"),
    "lone parent": (member(".."), "members inside the folder are required, but '..' came"),
    "backslash": (member("..\\up.txt"), "members inside the folder are required"),
    "drive": (member("C:up.txt"), "members inside the folder are required, but 'C:up.txt' came"),
    "symbolic link": (member("aclImdb/train/pos/9_9.txt", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
                      "'aclImdb/train/pos/9_9.txt' is a link or a device"),
    "hard link": (member("aclImdb/x", b"", type=tarfile.LNKTYPE, linkname="aclImdb/README"),
                  "'aclImdb/x' is a link or a device"),
    "device": (member("aclImdb/x", b"", type=tarfile.CHRTYPE), "'aclImdb/x' is a link or a device"),
    "pipe": (member("aclImdb/x", b"", type=tarfile.FIFOTYPE), "'aclImdb/x' is a link or a device"),
    "sparse": (member("aclImdb/train/pos/9_9.txt", type=tarfile.GNUTYPE_SPARSE),
               "files without holes are required, but 'aclImdb/train/pos/9_9.txt' is sparse"),
    **{
        f"sparse in pax {number}": (member("aclImdb/train/pos/9_9.txt", b"1\n0\n1\nx", pax_headers=headers),
                                    "files without holes are required, but 'aclImdb/train/pos/9_9.txt' is sparse")
        for number, headers in {
            "0.0": {"GNU.sparse.size": "1", "GNU.sparse.numblocks": "1"},
            "0.1": {"GNU.sparse.map": "0,1"},
            "1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        }.items()
    },
    "sparse in pax 0.1, no numbers": (member("x", b"", pax_headers={"GNU.sparse.map": "x"}),
                                      "a whole gzip-compressed tar archive is required, but this one is truncated or"),
    "pax record of absurd length": (member("x", b"9" * 5000 + b" comment=x\n", type=tarfile.XHDTYPE),
                                    "a whole gzip-compressed tar archive is required, but this one is truncated or"),
    "pax record in no encoding": (member("x", b"17 hdrcharset=\xff\n", type=tarfile.XHDTYPE),
                                  "a whole gzip-compressed tar archive is required, but this one is truncated or"),
    "same review twice": (member("aclImdb/train/pos/0_7.txt"), "each review once is required, but (0, 7) comes twice"),
    "no review's name": (member("aclImdb/train/pos/notes.txt"), "is required, but 'train/pos/notes.txt' came"),
    "no UTF-8": (member("aclImdb/train/pos/9_9.txt", b"caf\xe9"),
                 "aclImdb/train/pos/9_9.txt: UTF-8 is required, but unexpected end of data came at byte 3"),
    "empty review": (member("aclImdb/train/pos/9_9.txt", b""), "9_9.txt: a review with text is required"),
    "blank review": (member("aclImdb/train/pos/9_9.txt", b" \n"), "9_9.txt: a review with text is required"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_malformed_members_are_refused(case, tmp_path, cache):
    bad, message = HOSTILE[case]
    before = sorted(tmp_path.iterdir())
    path = write_archive(tmp_path / "a.tar.gz", [*members(FILES), bad])
    with pytest.raises(CorpusError) as raised:
        opened(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(p for p in tmp_path.iterdir() if p not in (path, cache)) == before
    assert list(cache.iterdir()) == []


def test_a_review_of_endless_length_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(imdb_archive, "LONGEST_REVIEW_BYTES", 1000)
    path = write_archive(tmp_path / "a.tar.gz", [*members(FILES), member("aclImdb/train/pos/9_9.txt", b"x" * 1001)])
    with pytest.raises(
        CorpusError, match=r"1000 bytes or less are required, but 'aclImdb/train/pos/9_9\.txt' has 1001"
    ):
        opened(path)


def header(size: int, **fields) -> bytes:
    """A member's header alone, whatever follows."""
    info, _ = member("aclImdb/train/unsup/0_0.txt", size=size, **fields)
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_sparse_file_that_is_cut_in_its_map_is_refused(tmp_path):
    extended = bytearray(header(1, type=tarfile.GNUTYPE_SPARSE))
    extended[482] = 1  # more of the map follows, and nothing does
    extended[148:156] = b"%06o\0 " % (sum(extended[:148]) + 8 * ord(" ") + sum(extended[156:]))
    for whole in (bytes(extended), bytes(extended) + b"\0" * 504):
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole))
        with pytest.raises(CorpusError, match=r"a\.tar\.gz: .* but this one is truncated or damaged"):
            opened(tmp_path / "a.tar.gz")


@pytest.mark.parametrize("size", [2**62, 2**80, -1, -(2**62)])
def test_a_member_of_impossible_size_is_refused_before_its_end_is_looked_for(size, tmp_path):
    """tarfile would step to the end of an unread one in blocks of 10 kB: 2**62 bytes take for ever."""
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header(size) + tar_bytes(members(FILES))))
    with pytest.raises(CorpusError, match=r"a\.tar\.gz: .* required, but"):
        opened(tmp_path / "a.tar.gz")


def test_an_archive_that_unpacks_to_far_more_than_texts_do_is_refused(tmp_path, cache, monkeypatch):
    """Some kilobytes would else fill the disk of the cache folder, with reviews that are none too long."""
    monkeypatch.setattr(imdb_archive, "LONGEST_REVIEW_BYTES", 100_000)
    long = [member(f"aclImdb/train/pos/{number}_9.txt", b"x" * 99_000) for number in range(200, 220)]
    path = write_archive(tmp_path / "a.tar.gz", [*members(FILES), *long])
    most = 100_000 + 100 * path.stat().st_size
    assert most < 20 * 99_000
    with pytest.raises(CorpusError, match=f"members of {most} bytes or less in all are required, but more came"):
        opened(path)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("kind", ["name", "link"])
def test_a_header_of_endless_length_is_refused_before_it_is_read(kind, layout, tmp_path):
    """tarfile reads a long name or pax records whole, and an archive of some kilobytes can unpack to any length."""
    endless = "aclImdb/" + "x" * (imdb_archive.LONGEST_HEADER_BYTES + 2 * tarfile.RECORDSIZE)
    bad = member(endless) if kind == "name" else member("aclImdb/x", b"", type=tarfile.SYMTYPE, linkname=endless)
    whole = tar_bytes([*members(FILES), bad], format=layout)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(CorpusError, match=r"a\.tar\.gz: .*headers of 65536 bytes or less are required, but more came"):
        opened(tmp_path / "a.tar.gz")
    longest = "aclImdb/" + "x" * (imdb_archive.LONGEST_HEADER_BYTES - 100)
    allowed = member(longest) if kind == "name" else member("aclImdb/" + "x" * 3000)
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(tar_bytes([*members(FILES), allowed], format=layout)))
    assert opened(tmp_path / "b.tar.gz").examples == {"train": 10, "test": 10}


def test_texts_may_be_longer_than_headers(tmp_path):
    """What may be read is counted anew from one member to the next."""
    sizes = [10, 70_000, 511, 512, 513, 300_000, *[20_000] * 40]
    assert min(sum(sizes), max(sizes)) > imdb_archive.LONGEST_HEADER_BYTES + 2 * tarfile.RECORDSIZE
    more = [member(f"aclImdb/train/unsup/{n}_0.txt", b"x" * size) for n, size in enumerate(sizes, start=100)]
    more += [member(f"aclImdb/train/pos/{n}_9.txt", b"x" * size) for n, size in enumerate(sizes, start=100)]
    path = write_archive(tmp_path / "a.tar.gz", [*more, *members(FILES)])
    assert opened(path).examples == {"train": 10 + len(sizes), "test": 10}


def endless_name(bytes_of_name: int) -> bytes:
    """A long name, unfinished."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, bytes_of_name
    return info.tobuf(tarfile.GNU_FORMAT) + b"x" * bytes_of_name


def test_a_folder_that_says_it_has_content_does_not_make_room_for_a_longer_header(tmp_path):
    """tarfile does not skip a folder's content, so the next header stands right behind it."""
    folder = tarfile.TarInfo("aclImdb/train")
    folder.type, folder.size = tarfile.DIRTYPE, 2_000_000
    whole = folder.tobuf(tarfile.GNU_FORMAT) + endless_name(1_000_000)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(CorpusError, match="headers of 65536 bytes or less are required, but more came"):
        opened(tmp_path / "a.tar.gz")


def test_a_size_for_all_members_does_not_make_room_for_a_longer_header(tmp_path):
    everywhere = tarfile.TarInfo.create_pax_global_header({"size": "2000000"})
    whole = everywhere + header(0) + endless_name(1_000_000)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(CorpusError, match=r"a\.tar\.gz: .* required"):
        opened(tmp_path / "a.tar.gz")


def test_headers_for_all_members_may_not_pile_up(tmp_path):
    """tarfile keeps them all."""
    piled = [tarfile.TarInfo.create_pax_global_header({f"comment{n}": "x" * 30_000}) + header(0) for n in range(4)]
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"".join(piled)))
    with pytest.raises(CorpusError, match="headers of 65536 bytes or less are required, but more came"):
        opened(tmp_path / "a.tar.gz")


def test_headers_upon_headers_are_refused(tmp_path):
    info = tarfile.TarInfo("aclImdb/x")
    info.pax_headers = {"comment": "x"}
    about_the_next = info.tobuf(tarfile.PAX_FORMAT)[:-512]
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(about_the_next * 5000 + tar_bytes(members(FILES))))
    with pytest.raises(CorpusError, match=r"a\.tar\.gz: .*headers of 65536 bytes or less are required, but more came"):
        opened(tmp_path / "a.tar.gz")


@pytest.mark.parametrize("folder", ["train/pos", "train/neg", "test/pos", "test/neg"])
def test_a_folder_without_reviews_is_named(folder, tmp_path):
    files = {name: text for name, text in FILES.items() if not name.startswith(folder)}
    with pytest.raises(CorpusError, match=f"but there is no review in {folder}"):
        opened(write_archive(tmp_path / "a.tar.gz", members(files)))
    with pytest.raises(CorpusError, match=f"but there is no {folder}"):
        opened(write_folder(tmp_path / "aclImdb", files))
    (tmp_path / "aclImdb" / folder).mkdir()
    with pytest.raises(CorpusError, match=f"but there is no review in {folder}"):
        opened(tmp_path / "aclImdb")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.97])
def test_a_truncated_archive_is_refused(share, tmp_path):
    path = write_archive(tmp_path / "a.tar.gz")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CorpusError, match=r"a\.tar\.gz: .*truncated or damaged|there is no review in"):
        opened(path)


def test_every_flipped_byte_of_the_compressed_data_is_noticed(tmp_path):
    """The CRC stands at the very end; gzip's own header has nothing that is checked, or matters."""
    path = write_archive(tmp_path / "a.tar.gz")
    content = path.read_bytes()
    for place in range(10, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        with pytest.raises(CorpusError):  # the CRC's, or what the changed text breaks before
            opened(path)


@pytest.mark.parametrize("place", [0, 3, 19])
def test_a_damaged_header_inside_is_noticed_although_the_crc_is_right(place, tmp_path):
    """tarfile alone would stop there without a word, and half of the reviews would be missing."""
    whole = bytearray(tar_bytes(members(FILES), format=tarfile.USTAR_FORMAT))
    whole[1024 * place + 150] ^= 0xFF  # inside the header's checksum
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(whole)))
    with pytest.raises(CorpusError, match=r"truncated or damaged \("):
        opened(tmp_path / "a.tar.gz")


def test_an_archive_without_its_end_is_noticed_although_the_crc_is_right(tmp_path):
    whole = tar_bytes(members(FILES), format=tarfile.USTAR_FORMAT)
    for end in (1024 * 7, 1024 * 7 + 100, 1024 * 7 + 520):
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole[:end]))
        with pytest.raises(CorpusError, match=r"truncated or damaged|is cut off"):
            opened(tmp_path / "a.tar.gz")


NO_ARCHIVES = {
    "nothing": b"",
    "a text": b"no archive",
    "nothing, compressed": gzip.compress(b""),
    "a text, compressed": gzip.compress(b"no archive" * 100),
}


@pytest.mark.parametrize("content", NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_what_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(CorpusError, match=r"a\.tar\.gz: .*"):
        opened(tmp_path / "a.tar.gz")


# Folders.


def test_a_folder_with_a_file_that_is_no_review_is_refused(tmp_path):
    folder = write_folder(tmp_path / "aclImdb", {**FILES, "train/pos/notes.txt": "x"})
    with pytest.raises(CorpusError, match=r"is required, but 'train/pos/notes\.txt' came"):
        opened(folder)


def test_a_folder_with_a_review_that_is_not_utf8_is_refused(tmp_path):
    folder = write_folder(tmp_path / "aclImdb")
    (folder / "test/neg/10_1.txt").write_bytes(b"caf\xe9 noir")
    with pytest.raises(
        CorpusError, match=r"10_1\.txt: UTF-8 is required, but invalid continuation byte came at byte 3"
    ):
        opened(folder)


def test_a_review_that_vanishes_is_named(tmp_path):
    folder = write_folder(tmp_path / "aclImdb")
    corpus = opened(folder)
    (folder / "test/neg/10_1.txt").unlink()
    with pytest.raises(CorpusError, match=r"10_1\.txt: cannot be read: No such file or directory"):
        list(corpus.batches("test"))


# The download.


def test_without_data_the_archive_is_downloaded_once(published, cache):
    corpus = open_corpus(CorpusSettings(name="imdb"), seed=0)
    assert texts(corpus, "train") == expected("train")
    published.unlink()
    assert open_corpus(CorpusSettings(name="imdb"), seed=0).digest == corpus.digest
    assert (cache / "aclImdb_v1.tar.gz").is_file()


def test_a_download_with_another_checksum_is_refused(published, monkeypatch, cache):
    monkeypatch.setattr(imdb, "ARCHIVE_MD5", "0" * 32)
    with pytest.raises(DownloadError, match=r"MD5 0{32} is required"):
        open_corpus(CorpusSettings(name="imdb"), seed=0)
    assert not (cache / "aclImdb_v1.tar.gz").exists()


def test_a_local_archive_may_have_any_checksum(tmp_path):
    assert opened(write_archive(tmp_path / "aclImdb_v1.tar.gz")).examples == {"train": 10, "test": 10}


def test_the_published_archive_is_the_one_of_the_notebook():
    assert imdb.ARCHIVE_URL == "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
    assert imdb.ARCHIVE_MD5 == "7c2ac02c03563afcf9b574c7e56c153a"


def test_progress_counts_the_reviews(tmp_path, monkeypatch):
    monkeypatch.setattr(imdb_archive, "_PROGRESS_REVIEWS", 5)
    seen = []

    class Recorder:
        def start(self, description, total=None):
            seen.append(description)
            return self

        def advance(self, n=1):
            seen.append(n)

        def finish(self):
            seen.append("done")

    open_archive(write_archive(tmp_path / "a.tar.gz"), tmp_path / "cache", imdb.CLASS_NAMES, progress=Recorder())
    assert seen == ["read a.tar.gz (reviews)", 5, 5, 5, 5, "done"]
