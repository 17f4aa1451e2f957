import string
import sys
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from charedge.runtime import text as text_module
from charedge.runtime.text import NORMALIZATIONS, normalize, normalized_chunks, read_chunks

from charedge import CharedgeError

PARTS = [*"\ufeff\r\nae \u0301\u0327\u0344\u1100\u1161\u11a8가漢éか\u3099ﬁ😀"]


@pytest.mark.parametrize("form", NORMALIZATIONS)
def test_a_text_normalised_in_pieces_is_the_text_normalised_whole(form):
    random = np.random.default_rng(5)
    for _ in range(400):
        text = "".join(random.choice(PARTS, random.integers(0, 40)))
        cuts = [0, *sorted(random.integers(0, len(text) + 1, random.integers(0, 8)).tolist()), len(text)]
        pieces = [text[a:b] for a, b in pairwise(cuts)]
        assert "".join(normalized_chunks(pieces, form)) == normalize(text, form)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_a_file_read_in_blocks_is_the_file(tmp_path, monkeypatch, size):
    monkeypatch.setattr(text_module, "BLOCK_BYTES", size)
    text = "a é 漢 😀 \r\n" * 20
    (tmp_path / "text.txt").write_bytes(text.encode())
    assert "".join(read_chunks(tmp_path / "text.txt")) == text


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(("data", "match"), [(b"abc\xff", "byte 3"), (b"abcde\xe6\xbc", "byte 5"), (b"abc\0d", "offset 3")])
def test_the_offset_of_invalid_bytes_is_reported(tmp_path, monkeypatch, size, data, match):
    monkeypatch.setattr(text_module, "BLOCK_BYTES", size)
    (tmp_path / "text.txt").write_bytes(data)
    with pytest.raises(CharedgeError, match=match):
        list(read_chunks(tmp_path / "text.txt"))


def test_a_text_is_cut_only_where_no_normalization_form_joins_characters():
    """The second halves of all that composes, and marks, which may change places, never begin a piece."""
    everything = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cn", "Co", "Cs")]
    canonical = [unicodedata.decomposition(character).split() for character in everything]
    seconds = {chr(int(parts[1], 16)) for parts in canonical if len(parts) == 2 and not parts[0].startswith("<")}
    seconds |= {chr(point) for point in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}  # of Hangul, composed by rule
    joining = {character for character in everything if unicodedata.combining(character)} | seconds
    wrong = [c for c in everything if text_module._is_boundary(c) and unicodedata.normalize("NFKD", c)[0] in joining]
    assert wrong == []
    assert all(map(text_module._is_boundary, string.printable + "éаあア中文한😀"))


@pytest.mark.parametrize("form", NORMALIZATIONS)
def test_a_long_text_that_can_be_cut_nowhere_waits_for_its_end(form):
    runs = ["\u0315\u0300" * 200, "\u1161" * 500, "\u3099\u0301" * 300, "\u0344\uff9e" * 300, "\u09be\u0327\u0345" * 200]
    whole = "a" + "".join(runs)
    pieces = list(normalized_chunks((whole[i : i + 7] for i in range(0, len(whole), 7)), form))
    assert "".join(pieces) == (whole if form == "none" else unicodedata.normalize(form, whole))
    assert len(pieces) == 1
