import bz2
import errno
import gzip
import hashlib
import os
import shutil

import pytest
from charedge.runtime.text import Normalization
from charedge.trainer import corpus
from charedge.trainer.corpus import find_sources
from conftest import text_path

from charedge import CharedgeError


def read(sources, form: Normalization = "NFC"):
    return "".join(chunk for source in find_sources(sources) for chunk in source.chunks(form))


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def test_files_and_gzip_are_read_one_after_the_other(tmp_path):
    first, second = write(tmp_path / "b.txt", b"one\r\n"), write(tmp_path / "a.txt.gz", gzip.compress(b"two\n"))
    assert read([first, second]) == "one\ntwo\n"
    assert [source.name for source in find_sources([first, second])] == [first, second]


def test_a_folder_gives_its_texts_sorted_by_path(tmp_path):
    write(tmp_path / "z.txt", b"3")
    write(tmp_path / "b" / "x.txt.gz", gzip.compress(b"2"))
    write(tmp_path / "a" / "y.txt", b"1")
    write(tmp_path / "c" / "readme.md", b"4")
    write(tmp_path / "c" / "page.RST.GZ", gzip.compress(b"5"))
    write(tmp_path / "a" / "ignored.py", b"no")
    assert read([str(tmp_path)]) == "12543"


def test_run_folders_in_a_folder_are_left_out(train, tmp_path):
    write(tmp_path / "book.txt", b"text")
    shutil.copytree(train().path, tmp_path / "runs" / "one")
    assert read([str(tmp_path)]) == "text"
    assert read([str(tmp_path / "runs" / "one")]) != ""  # unless it is given itself


def test_the_text_is_normalised_as_asked(tmp_path):
    path = write(tmp_path / "a.txt", "\ufeffe\u0301\rx".encode())
    assert read([path]) == "é\nx"
    assert read([path], "NFD") == "e\u0301\nx"


def test_python_docs_need_no_network():
    text = read(["python-docs"])
    assert len(text) > 300_000
    assert "assert" in text


def test_shakespeare_is_downloaded_once_and_checked(tmp_path, monkeypatch):
    source = write(tmp_path / "input.txt", b"All the world's a stage")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", f"file://{source}")
    with pytest.raises(CharedgeError, match="has changed"):
        read(["shakespeare"])
    monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", hashlib.sha256(b"All the world's a stage").hexdigest())
    assert read(["shakespeare"]) == "All the world's a stage"
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", "file:///nowhere")
    assert read(["shakespeare"]) == "All the world's a stage"


def test_a_missing_network_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", "file:///nowhere")
    with pytest.raises(CharedgeError, match="cannot be downloaded"):
        read(["shakespeare"])


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("a.txt", b"abc\xffdef", "at byte 3"),
        ("a.txt", b"ab\x00cd", "offset 2"),
        ("a.txt", "hello".encode("utf-16"), "looks like UTF-16"),
        ("a.txt", gzip.compress(b"text", mtime=0), "is compressed \\(gzip\\): unpack it, or give it a name that ends in .gz"),
        ("a.bz2", bz2.compress(b"text"), "is compressed \\(bzip2\\): unpack it"),
        ("a.txt.gz", b"no gzip", "truncated or not a gzip file"),
        ("a.txt.gz", gzip.compress(b"x" * 1000, mtime=0)[:-9], "truncated or not a gzip file"),
        ("a/b.py", b"folder without text", "holds no"),
    ],
)
def test_a_corpus_that_is_not_text_is_refused(tmp_path, name, data, match):
    path = write(tmp_path / name, data)
    with pytest.raises(CharedgeError, match=match):
        read([path if "/" not in name else str(tmp_path / "a")])


@pytest.mark.parametrize("source", ["missing.txt", "shakespear"])
def test_a_missing_corpus_is_refused(source):
    with pytest.raises(CharedgeError, match=source):
        read([source])


@pytest.mark.parametrize("place", ["", "part", "part/deeper"])
def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch, place):
    write(tmp_path / "a.txt", b"hello")
    write(tmp_path / "part" / "deeper" / "b.txt", b"world")
    hidden, scandir = tmp_path / place, os.scandir

    def refusing(path="."):
        if os.fspath(path) == str(hidden):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(hidden))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(CharedgeError, match=rf"{hidden} cannot be read \(Permission denied\)"):
        read([str(tmp_path)])


@pytest.mark.parametrize(("target", "match"), [("missing", "does not exist"), ("a.txt", "Too many levels")])
def test_a_text_in_a_folder_whose_link_leads_nowhere_is_refused(tmp_path, target, match):
    write(tmp_path / "b.txt", b"hello")
    (tmp_path / "a.txt").symlink_to(tmp_path / target)
    with pytest.raises(CharedgeError, match=match):
        read([str(tmp_path)])


def test_a_folder_is_read_once_whatever_links_it_holds(tmp_path):
    write(tmp_path / "a.txt", b"hello ")
    write(tmp_path / "b.txt.folder" / "c.txt", b"world")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "b.txt").symlink_to(tmp_path / "b.txt.folder")
    assert read([str(tmp_path)]) == "hello world"


def test_shakespeare_has_65_characters():
    text = read([str(text_path("shakespeare.txt"))])
    assert (len(text), len(set(text))) == (1_115_394, 65)
    assert hashlib.sha256(text.encode()).hexdigest() == corpus.SHAKESPEARE_SHA256


def test_quijote_keeps_its_accents_in_nfc():
    path = text_path("quijote.txt")
    composed, raw = read([str(path)]), read([str(path)], "none")
    assert len(raw) == 1_038_397
    assert len(composed) < len(raw)
    assert "\u0301" in raw
    assert "\u0301" not in composed
    assert "á" in composed
