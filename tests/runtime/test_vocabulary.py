import unicodedata

import pytest
from charedge.runtime.text import normalize
from charedge.runtime.vocabulary import Vocabulary

from charedge import CharedgeError

TRICKY = "a\n\r\t\\ \u00a0\u2028\u200d\u0301\x00\x7f\x85é漢😀\U000e0001🏳"


def test_a_text_comes_back_from_its_ids():
    vocabulary = Vocabulary.of(TRICKY)
    assert vocabulary.decode(vocabulary.encode(TRICKY)) == TRICKY


def test_the_file_comes_back_as_the_same_vocabulary():
    vocabulary = Vocabulary.of(TRICKY)
    assert Vocabulary.parse(vocabulary.to_bytes(), "it") == vocabulary


def test_the_file_has_one_escaped_token_a_line():
    lines = Vocabulary.of("b\n\r\t\\ \u00a0\u2028\U000e0001é😀").to_bytes().decode().split("\n")
    assert lines == ["[UNK]", r"\t", r"\n", r"\r", " ", r"\\", "b", r"\u00A0", "é", r"\u2028", "😀", r"\U000E0001", ""]


def test_a_vocabulary_by_another_writer_may_escape_any_character():
    assert Vocabulary.parse(b"[UNK]\n\\u0041\n\\U0001F600\n\\u0020\n", "it").tokens == ("[UNK]", "A", "😀", " ")


def test_tokens_are_the_sorted_distinct_characters():
    assert Vocabulary.of("banana\n").tokens == ("[UNK]", "\n", "a", "b", "n")


def test_unknown_characters_are_id_zero():
    assert Vocabulary.of("abc").encode("axc\ud800").tolist() == [1, 0, 3, 0]


def test_an_nfd_text_is_kept_or_composed_as_asked():
    text = unicodedata.normalize("NFD", "mañana")
    assert Vocabulary.of(normalize(text, "none")).tokens[-1] == "\u0303"
    assert "ñ" in Vocabulary.of(normalize(text, "NFC")).tokens
    assert normalize("mañana", "NFD") == text


def test_a_byte_order_mark_and_carriage_returns_are_cleaned_away():
    assert normalize("\ufeffa\r\nb\rc\n", "NFC") == "a\nb\nc\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[UNK]",
        b"a\n[UNK]\n",
        b"[UNK]\nab\n",
        b"[UNK]\na\na\n",
        b"[UNK]\n\n",
        b"[UNK]\n\\x\n",
        b"[UNK]\n\\UFFFFFFFF\n",
        b"[UNK]\n\\uD800\n",
        b"[UNK]\n\\U00110000\n",
        b"[UNK]\n\r\n",
        b"[UNK]\n\\\n",
        b"[UNK]\na\r\n",
        b"[UNK]\na\n\\u0061\n",
        b"[UNK]\n\xff\n",
    ],
)
def test_a_damaged_file_is_refused(data):
    with pytest.raises(CharedgeError, match="vocabulary here"):
        Vocabulary.parse(data, "vocabulary here")
