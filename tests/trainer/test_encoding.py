import errno
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
import unicodedata

import numpy as np
import pytest
from charedge.runtime.progress import Report
from charedge.runtime.text import NORMALIZATIONS
from charedge.runtime.vocabulary import Vocabulary
from charedge.trainer import corpus, encoder, id_cache
from charedge.trainer.encoding import encode_corpus

from charedge import CharedgeError

PARTS = [*"\ufeff\r\n\tae \u0301\u0327\u0315\u0344\u1100\u1161\u11a8가각漢éか\u3099\uff9eﬁ\u09c7\u09be😀\U0001d15e", "\r\n"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of the cache; nothing outside it may be touched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "charedge"


@pytest.fixture
def cached(monkeypatch):
    """Every corpus counts as large, and goes to the cache."""
    monkeypatch.setattr(id_cache, "SMALL_BYTES", -1)


@pytest.fixture
def write(tmp_path):
    def call(text, name="text.txt"):
        data = text.encode() if isinstance(text, str) else text
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return call


def normalized(text, form):
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return text if form == "none" else unicodedata.normalize(form, text)


def check(encoded, text):
    """What an encoded text must be, said without the code under test."""
    alphabet = sorted(set(text))
    assert encoded.vocabulary.tokens == ("[UNK]", *alphabet)
    ids = encoded.ids[:]
    assert (ids.dtype, ids.tolist()) == (np.int32, [alphabet.index(c) + 1 for c in text])
    assert encoded.ids.text(0, len(encoded.ids)) == text
    assert encoded.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (len(encoded.ids), encoded.characters, encoded.skipped, encoded.unknown) == (len(text), len(text), 0, "skip")


@pytest.mark.parametrize("small", [-1, 1 << 24])
@pytest.mark.parametrize("form", NORMALIZATIONS)
def test_what_is_encoded_in_blocks_is_the_whole_text(write, monkeypatch, form, small):
    monkeypatch.setattr(id_cache, "SMALL_BYTES", small)
    monkeypatch.setattr(encoder, "SLICE", 3)
    random = np.random.default_rng(7)
    for size in [1, 2, 3, 5, 7, 64, 1000]:
        monkeypatch.setattr(corpus, "BLOCK_BYTES", size)
        for _ in range(5):
            text = "ab" + "".join(random.choice(PARTS, random.integers(1, 200)))
            text = text[random.integers(0, 2) :]
            check(encode_corpus([write(text)], form), normalized(text, form))


def test_each_file_is_a_text_of_its_own(write):
    first, second, third = write("\ufeffe\r", "1.txt"), write("\n\u0301x", "2.txt.gz"), write("\ufeff\u0301\n", "3.txt")
    encoded = encode_corpus([first, second, third], "NFC")
    check(encoded, "e\n\n\u0301x\u0301\n")
    assert encoded.files == [first, second, third]


@pytest.mark.parametrize("small", [-1, 1 << 24])
def test_an_empty_file_among_others_is_named_and_adds_nothing(write, monkeypatch, recwarn, small):
    monkeypatch.setattr(id_cache, "SMALL_BYTES", small)
    files = [write("", "1.txt"), write("hello", "2.txt"), write("", "3.txt.gz"), write("\ufeff", "4.txt"), write("", "5.txt")]
    check(encode_corpus(files, "NFC"), "hello")
    assert [str(warning.message) for warning in recwarn] == [f"2 of 5 files are empty, {files[0]} among them."]
    encode_corpus(files[1:2], "NFC")
    assert len(recwarn) == 1


def test_files_that_are_all_empty_are_refused(write):
    with pytest.raises(CharedgeError, match=r"1\.txt and .*2\.txt.gz are empty"):
        encode_corpus([write("", "1.txt"), write("", "2.txt.gz")], "NFC")


def test_a_million_marks_in_a_row_are_sorted_as_if_they_were_few(write):
    half = 500_000
    encoded = encode_corpus([write("a" + "\u0315\u0300" * half + "\nb")], "NFC")
    assert encoded.ids.text(0, len(encoded.ids)) == "à" + "\u0300" * (half - 1) + "\u0315" * half + "\nb"


@pytest.mark.parametrize("small", [-1, 1 << 24])
@pytest.mark.parametrize("distinct", [256, 257, 20_000])
def test_ids_take_two_bytes_when_one_is_too_small(write, monkeypatch, small, distinct):
    monkeypatch.setattr(id_cache, "SMALL_BYTES", small)
    monkeypatch.setattr(encoder, "SLICE", 50)
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 200))) * 7 + "".join(map(chr, range(0x4E00, 0x4E00 + distinct)))
    encoded = encode_corpus([write(text)], "NFC")
    assert encoded.ids.text(0, len(text)) == text
    assert encoded.ids[:].tolist() == [ord(c) - 0x4E00 + 1 for c in text]


def test_more_distinct_characters_than_two_bytes_tell_apart_are_refused(write):
    text = "".join(map(chr, range(0x20000, 0x2FFFF)))
    assert len(encode_corpus([write(text)], "none").vocabulary) == 0x10000
    with pytest.raises(CharedgeError, match="65,535 distinct"):
        encode_corpus([write(text + "a")], "none")


def test_ids_are_read_by_slices_arrays_and_views(write):
    text = "hello world, again"
    ids = encode_corpus([write(text)], "NFC").ids
    whole = ids[:]
    places = np.array([[0, 5, 2], [17, 1, 1]])
    assert (ids[places] == whole[places]).all()
    assert ids[places].dtype == np.int32
    view = ids.part(6, 17)
    assert len(view) == 11
    assert (view[2:4] == whole[8:10]).all()
    assert view.part(0, 5).text(0, 5) == "world"


def test_rare_characters_become_unknown(write):
    encoded = encode_corpus([write("aabbbccx")], "NFC", min_count=2)
    assert encoded.vocabulary.tokens == ("[UNK]", "a", "b", "c")
    assert encoded.ids[:].tolist() == [1, 1, 2, 2, 2, 3, 3, 0]
    assert encoded.ids.text(5, 8) == "ccx"
    assert (encoded.unknown, encoded.skipped, encoded.characters) == ("unk", 0, 8)
    assert encode_corpus([write("aabb")], "NFC", min_count=2).unknown == "skip"


@pytest.mark.parametrize("small", [-1, 1 << 24])
def test_a_given_vocabulary_is_used_unchanged(write, monkeypatch, small):
    monkeypatch.setattr(id_cache, "SMALL_BYTES", small)
    vocabulary = Vocabulary.parse(b"[UNK]\nc\nz\na\n", "vocabulary.txt")
    encoded = encode_corpus([write("abcab😀")], "NFC", vocabulary, min_count=100)
    assert encoded.vocabulary is vocabulary
    assert encoded.ids[:].tolist() == [3, 1, 3]
    assert encoded.ids.text(0, 3) == "aca"
    assert (encoded.characters, encoded.skipped, encoded.unknown) == (6, 3, "skip")
    assert encoded.sha256 == hashlib.sha256("abcab😀".encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        ("", {}, "text.txt is empty"),
        ("\ufeff", {}, "text.txt is empty"),
        ("aaaa", {}, "only one distinct character, 'a'"),
        ("xyxy", {"vocabulary": Vocabulary.of("ab")}, "no character of the vocabulary"),
        ("xyza", {"vocabulary": Vocabulary.of("ab")}, "only one distinct character, 'a'"),
        ("aabbc", {"min_count": 3}, "`min_count` 3 leaves fewer than two"),
        (b"abc\xffdef", {}, "text.txt is not UTF-8 text at byte 3"),
        (b"abcd\xe6\xbc", {}, "text.txt is not UTF-8 text at byte 4"),
        (b"abcdefgh\x00ij", {}, "zero byte at offset 8"),
        ("hello".encode("utf-16"), {}, "looks like UTF-16"),
    ],
)
def test_an_unusable_text_is_refused_and_not_cached(write, cached, cache, monkeypatch, text, options, match):
    monkeypatch.setattr(corpus, "BLOCK_BYTES", 4)
    with pytest.raises(CharedgeError, match=match):
        encode_corpus([write(text)], "NFC", **options)
    assert options.get("min_count") or not list(cache.glob("*"))


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:20] + b"\xff" * 20, lambda data: data + b"more"])
def test_a_damaged_gzip_is_refused(tmp_path, write, cached, damage):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(damage(gzip.compress(b"some text that is long enough " * 100)))
    with pytest.raises(CharedgeError, match="truncated or not a gzip file"):
        encode_corpus([str(path)], "NFC")


def test_a_small_corpus_leaves_nothing_in_the_cache(write, cache):
    encode_corpus([write("hello")], "NFC")
    assert not cache.parent.exists()


def encodings(monkeypatch):
    """How often a text was encoded from now on."""
    calls, real = [], id_cache.Text.write
    monkeypatch.setattr(id_cache.Text, "write", lambda *arguments: calls.append(1) or real(*arguments))
    return calls


def test_a_large_corpus_is_encoded_once(write, cached, cache, monkeypatch):
    calls = encodings(monkeypatch)
    check(encode_corpus([write("hello world\n")], "NFC"), "hello world\n")
    check(encode_corpus([write("hello world\n", "elsewhere.txt")], "NFC"), "hello world\n")
    assert encode_corpus([write("hello world\n")], "NFC", min_count=2).vocabulary.tokens == ("[UNK]", "l", "o")
    assert len(calls) == 1
    assert sorted(path.suffix for path in cache.iterdir()) == [".ids", ".json"]


def test_another_content_form_border_or_vocabulary_is_another_entry(write, cached, cache):
    text, first, second = write("one two"), write("one", "1.txt"), write(" two", "2.txt")
    cases = [
        ([text], "NFC", None),
        ([text], "NFD", None),
        ([text], "NFC", Vocabulary.of("one two")),
        ([text], "NFC", Vocabulary.of("one")),
        ([first, second], "NFC", None),
        ([second, first], "NFC", None),
        ([write("one twO", "3.txt")], "NFC", None),
    ]
    for case in cases:
        encode_corpus(*case)
    assert len(list(cache.glob("*.ids"))) == len(cases)


def json_with(**values):
    return lambda data: json.dumps({**json.loads(data), **values}).encode()


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".ids", lambda data: data[:-1]),
        (".ids", lambda data: data + b"x"),
        (".ids", lambda data: b""),
        (".ids", lambda data: bytes(len(data))),
        (".ids", lambda data: b"\xff" * len(data)),
        (".ids", lambda data: data[::-1]),
        (".ids", lambda data: data[1:] + data[:1]),
        (".json", lambda data: data[:-1]),
        (".json", lambda data: b"[]"),
        (".json", lambda data: b"{}"),
        (".json", lambda data: b"\xff"),
        (".json", lambda data: b"[" * 100_000),
        (".json", json_with(counts=[1])),
        (".json", json_with(counts="many")),
        (".json", json_with(counts=[1, 1, 2, 3, 1, 1, 1, 1])),  # as many in all
        (".json", json_with(alphabet=None)),
        (".json", json_with(alphabet="helo wrx")),
        (".json", json_with(characters=3)),
        (".json", json_with(characters=12)),
        (".json", json_with(sha256="0" * 64)),
        (".json", json_with(checksum=0)),
        (".json", json_with(checksum=None)),
    ],
)
def test_a_damaged_entry_is_made_again_with_a_warning(write, cached, cache, suffix, damage):
    path = write("hello world")
    encode_corpus([path], "NFC")
    entry = next(cache.glob(f"*{suffix}"))
    before = entry.read_bytes()
    assert damage(before) != before
    entry.write_bytes(damage(before))
    with pytest.warns(UserWarning, match=f"{entry.with_suffix('.ids')} is damaged") as warned:
        check(encode_corpus([path], "NFC"), "hello world")
    assert entry.read_bytes() == before
    assert len(warned) == 1


@pytest.mark.parametrize("distinct", [100, 300])
def test_no_flipped_bit_is_trained_on(write, cached, cache, monkeypatch, distinct):
    monkeypatch.setattr(id_cache, "BLOCK_BYTES", 64)
    random = np.random.default_rng(5)
    text = "".join(chr(0x4E00 + i) for i in range(distinct)) * 3
    path = write(text)
    encode_corpus([path], "NFC")
    for entry in sorted(cache.iterdir()):
        before = entry.read_bytes()
        for _ in range(60):
            data = bytearray(before)
            data[random.integers(len(data))] ^= 1 << random.integers(8)
            entry.write_bytes(data)
            check(encode_corpus([path], "NFC"), text)
        entry.write_bytes(before)


@pytest.mark.parametrize("suffix", [".ids", ".json"])
def test_half_an_entry_is_made_whole(write, cached, cache, capsys, suffix):
    path = write("hello world")
    encode_corpus([path], "NFC")
    next(cache.glob(f"*{suffix}")).unlink()
    check(encode_corpus([path], "NFC"), "hello world")
    assert capsys.readouterr().err == ""  # nothing is damaged: a process was killed between the two files
    assert sorted(path.suffix for path in cache.iterdir()) == [".ids", ".json"]


def test_ids_stay_readable_when_the_cache_is_emptied(write, cached, cache):
    encoded = encode_corpus([write("hello world")], "NFC")
    for path in cache.iterdir():
        path.unlink()
    check(encoded, "hello world")


def test_without_a_cache_a_medium_corpus_is_kept_in_memory_and_a_large_one_refused(tmp_path, write, cached, monkeypatch):
    path = write("hello world")
    monkeypatch.setenv("XDG_CACHE_HOME", write("a file", "occupied"))
    check(encode_corpus([path], "NFC"), "hello world")
    monkeypatch.setattr(id_cache, "MEMORY_BYTES", 10)
    with pytest.raises(CharedgeError, match=r"occupied/charedge \(.*\): make room there, or set XDG_CACHE_HOME"):
        encode_corpus([path], "NFC")


def test_a_user_without_a_home_folder_has_no_cache(write, cached, monkeypatch):
    """As in a container that runs with the number of a user that its system does not know."""

    def unknown(user):
        raise KeyError(user)

    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    check(encode_corpus([write("hello world")], "NFC"), "hello world")


def test_a_full_disk_leaves_nothing_behind(write, cached, cache, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    check(encode_corpus([write("hello world")], "NFC"), "hello world")
    assert list(cache.iterdir()) == []


def test_what_turns_out_larger_than_memory_goes_to_the_cache(write, cache, monkeypatch):
    monkeypatch.setattr(id_cache, "MEMORY_BYTES", 1000)
    check(encode_corpus([write("hello world\n" * 100, "a.txt.gz")], "NFC"), "hello world\n" * 100)
    assert sorted(path.suffix for path in cache.iterdir()) == [".ids", ".json"]


def test_a_leftover_of_a_killed_process_is_removed_and_what_a_user_made_is_not(write, cached, cache):
    cache.mkdir(parents=True)
    leftover, others = cache / f".charedge-{'0' * 16}.partial", {cache / ".abc.ids.12ab.1999999", cache / ".abc.ids.20231224"}
    for path in (leftover, *others):
        path.touch()
    encode_corpus([write("hello world")], "NFC")
    assert {path for path in cache.iterdir() if path.name.startswith(".")} == others


@pytest.mark.parametrize(("change", "match"), [("grow", "text.txt changed while"), ("vanish", "text.txt does not exist")])
def test_a_file_that_changes_between_the_passes_is_refused(tmp_path, write, cached, cache, monkeypatch, change, match):
    path, real = tmp_path / "text.txt", id_cache.Text.key
    write("hello world")

    def key(*arguments):
        result = real(*arguments)
        if change == "grow":
            path.write_text("hello worlds")
        else:
            path.unlink()
        return result

    monkeypatch.setattr(id_cache.Text, "key", key)
    with pytest.raises(CharedgeError, match=match):
        encode_corpus([str(path)], "NFC")
    assert list(cache.iterdir()) == []


def test_a_pipe_is_read_once(monkeypatch):
    def pipe():
        reading, writing = os.pipe()
        os.write(writing, b"hello world")
        os.close(writing)
        return reading

    reading = pipe()
    check(encode_corpus([f"/dev/fd/{reading}"], "NFC"), "hello world")
    os.close(reading)
    monkeypatch.setattr(id_cache, "MEMORY_BYTES", 5)
    reading = pipe()
    with pytest.raises(CharedgeError, match="can be read only once"):
        encode_corpus([f"/dev/fd/{reading}"], "NFC")
    os.close(reading)


@pytest.mark.parametrize("small", [-1, 1 << 24])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_progress_rises_to_its_end(write, monkeypatch, small, name):
    monkeypatch.setattr(id_cache, "SMALL_BYTES", small)
    monkeypatch.setattr(corpus, "BLOCK_BYTES", 1000)
    path = write(np.random.default_rng(1).integers(97, 123, 30_000, np.uint8).tobytes(), name)
    for _ in range(2):  # the second time from the cache
        seen: list[Report] = []
        encode_corpus([path], "NFC", progress=seen.append)
        done, totals = [report.done for report in seen], [report.total for report in seen]
        assert {(report.stage, report.unit) for report in seen} == {("encoding", "bytes")}
        assert list(done) == sorted(done)
        assert len(set(totals)) == 1
        assert done[-1] == totals[0]


def test_two_processes_may_encode_the_same_corpus(write, cache):
    path = write("hello world\n" * 100_000)
    code = (
        "import sys; from charedge.trainer import id_cache; id_cache.SMALL_BYTES = -1;"
        "from charedge.trainer import encoding; e = encoding.encode_corpus(sys.argv[1:], 'NFC'); print(e.sha256, e.ids[:].sum())"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert outputs[0] == outputs[1] != b""
    assert sorted(path.suffix for path in cache.iterdir()) == [".ids", ".json"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_memory_does_not_grow_with_the_text(write, cached, name):
    text = "To be, or not to be: é 漢.\n" * 1_500_000
    path = write(text, name)
    tracemalloc.start()
    encoded = encode_corpus([path], "NFC")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert encoded.characters == len(text)
    assert peak < 20 << 20
