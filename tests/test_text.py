"""Text becomes the ids that the notebooks' Keras layer gives, word for word, in batches of any size."""

from __future__ import annotations

import re
import sys
import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minibert import text
from minibert.errors import ArtifactError, CorpusError, SettingsError
from minibert.settings import TextSettings
from minibert.text import (
    Vocabulary,
    encode,
    learn_vocabulary,
    lower_case_table,
    sample_ids,
    split_words,
    standardize,
    stripped_pattern,
)
from tests import oracles
from tests.strategies import times

WHITESPACE = [*" \t\n\v\f\r", "\x1c", "\x85", "\xa0", "\u2003", "\u2028", "\u2029", "\u3000"]
"""ASCII whitespace splits words; what only Unicode calls whitespace is part of a word, in Keras as here."""

pieces = st.one_of(
    st.sampled_from(["a", "b", "the", "The", "THE", "film", "Film.", "[mask]", "[MASK]", "[UNK]", "[mask].", "[mask"]),
    st.sampled_from(["<br />", "<BR />", "<br/>", "<br /><br />", "a<br />b", "<br  />", '"a"', "it's", "[a]"]),
    st.sampled_from(["É", "é", "ß", "İ", "ΑΣ", "naïve", "naïve", "电影", "😀", "\ufeffa", "�"]),
    st.sampled_from(WHITESPACE),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
)  # fmt: skip
texts = st.lists(pieces, max_size=10).flatmap(lambda parts: st.sampled_from([" ", ""]).map(lambda gap: gap.join(parts)))
corpora = st.lists(texts, min_size=1, max_size=8)
sizes = st.integers(4, 12) | st.just(30_000)
lengths = st.integers(1, 8)


def arrow(strings: list[str]) -> pa.Array:
    return pa.array(strings, type=pa.string())


def has_words(corpus: list[str]) -> bool:
    return any(set(oracles.text_words(text)) - {"[mask]", "[UNK]"} for text in corpus)


def settings_of(size: int, length: int) -> TextSettings:
    return TextSettings(vocabulary_size=size, sequence_length=length)


# The same as plain Python, and as Keras


@times(2)
@given(text=texts)
@example("A GREAT film!<br />Really.")
@example("")
@example(" \t\r\n")
@example("\x85a b\xa0c")
def test_words_agree_with_the_oracle(text):
    assert standardize(arrow([text]), TextSettings()).to_pylist() == [oracles.standardize(text)]
    words, counts = split_words(arrow([text]), TextSettings())
    assert words.to_pylist() == oracles.text_words(text)
    assert counts.tolist() == [len(words)]


@given(corpus=corpora.filter(has_words), size=sizes, length=lengths)
@example(corpus=["b a", "a b", "c"], size=4, length=1)
@example(corpus=["[mask] [mask] a", "[UNK] [UNK] b"], size=5, length=3)
@example(corpus=["é z e", "ÿ \U0001f600 \ufeff"], size=30_000, length=6)
def test_vocabulary_and_ids_agree_with_the_oracle(corpus, size, length):
    settings = settings_of(size, length)
    vocabulary = learn_vocabulary([arrow(corpus)], settings)
    assert list(vocabulary.words) == oracles.vocabulary(corpus, size)
    for few_words in (0, sys.maxsize):  # each word by itself; all by one table
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text, "_FEW_WORDS", few_words)
            ids = encode(arrow(corpus), vocabulary, settings)
        assert (ids.dtype, ids.shape) == (np.int32, (len(corpus), length))
        assert ids.tolist() == [oracles.encode(one, vocabulary.words, length) for one in corpus]


def test_few_words_are_looked_up_without_a_table_of_the_vocabulary(monkeypatch):
    vocabulary, settings = Vocabulary(("", "[UNK]", *(f"w{i}" for i in range(9)), "[mask]")), TextSettings()
    monkeypatch.setattr(text.pc, "index_in", None)
    assert encode(arrow(["w3 nothing"]), vocabulary, settings)[0, :3].tolist() == [5, 1, 0]
    with pytest.raises(TypeError):
        encode(arrow(["w3 nothing w1"]), vocabulary, settings)


def notebook_layer(corpus: list[str], size: int, length: int):
    """The notebooks' cell: adapt, cut the vocabulary, set it again."""
    import keras
    import tensorflow as tf

    def custom_standardization(texts):
        lowered = tf.strings.lower(texts)
        without_breaks = tf.strings.regex_replace(lowered, "<br />", " ")
        punctuation = re.escape("!#$%&'()*+,-./:;<=>?@\\^_`{|}~")
        return tf.strings.regex_replace(without_breaks, f"[{punctuation}]", "")

    layer = keras.layers.TextVectorization(
        max_tokens=size, output_mode="int", standardize=custom_standardization, output_sequence_length=length
    )
    layer.adapt(tf.data.Dataset.from_tensor_slices(corpus).batch(3))
    words = layer.get_vocabulary()
    layer.set_vocabulary([*words[2 : size - 1], "[mask]"])
    return layer


def is_notebook_corpus(corpus: list[str]) -> bool:
    """``[mask]`` in the text would be in the notebook's vocabulary twice, which Keras refuses."""
    return has_words(corpus) and not any("[mask]" in oracles.text_words(text) for text in corpus)


@hypothesis_settings(max_examples=max(hypothesis_settings().max_examples // 4, 1))
@given(corpus=corpora.filter(is_notebook_corpus), size=sizes, length=lengths, more=corpora)
@example(corpus=["b a", "a b", "c"], size=4, length=2, more=["[mask] a [MASK]. [UNK] z"])
@example(corpus=["One<br />two,\x85 \xa0\u2028 three", "é É ß İ 😀"], size=9, length=5, more=["\x1c É \u3000"])
def test_vocabulary_and_ids_are_those_of_the_notebooks_layer(corpus, size, length, more):
    layer, settings = notebook_layer(corpus, size, length), settings_of(size, length)
    vocabulary = learn_vocabulary([arrow(corpus)], settings)
    assert list(vocabulary.words) == layer.get_vocabulary()
    # More has [mask] and words that were never seen.
    for some in (corpus, more):
        assert (
            encode(arrow(some), vocabulary, settings).tolist() == layer(np.array(some, dtype=object)).numpy().tolist()
        )


def test_mask_in_the_text_takes_no_place_in_the_vocabulary():
    vocabulary = learn_vocabulary([arrow(["[mask] [mask] [MASK] a a b"])], settings_of(5, 4))
    assert vocabulary.words == ("", "[UNK]", "a", "b", "[mask]")
    assert encode(arrow(["b [mask]!"]), vocabulary, settings_of(5, 3)).tolist() == [[3, 4, 0]]


# Other settings


@given(text=texts)
def test_letters_stay_where_nothing_is_lowered_or_stripped(text):
    settings = TextSettings(lowercase="none", line_break="", stripped_characters="")
    assert standardize(arrow([text]), settings).to_pylist() == [text]


@given(
    characters=st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=8), text=st.text()
)
@example(characters="^]\\-[", text="^]\\-[a-z")
def test_any_characters_can_be_stripped(characters, text):
    settings = TextSettings(lowercase="none", line_break="", stripped_characters=characters)
    stripped = "".join(c for c in text if c not in characters)
    assert standardize(arrow([text]), settings).to_pylist() == [stripped]
    assert stripped_pattern(characters).startswith("[")


def lower_by_hand(text: str) -> str:
    """Python knows Unicode's full mapping; of a lone character it is the simple one, but for one letter."""
    return "".join("i" if character == "İ" else character.lower() for character in text)


@times(2)
@given(text=texts)
@example(text="ΟΔΥΣΣΕΥΣ ΌΣΟΣ Σ")  # a Σ at a word's end is not another letter here
@example(text="İI\u0131i ẞß Ǆǅǆ ﬁ ŉ K Å Ω Ⓐ Ⅷ Ა \u13a0\uab70 𐐀 𞤀 Ꙁ")
def test_every_letter_is_lowered_by_itself_where_unicode_is_asked_for(text):
    settings = TextSettings(lowercase="unicode", line_break="", stripped_characters="")
    text = "".join(c for c in text if unicodedata.category(c) != "Cn")  # Python may not know what Arrow knows already
    assert standardize(arrow([text]), settings).to_pylist() == [lower_by_hand(text)]


def test_the_table_of_lower_case_is_what_texts_are_lowered_by():
    table = lower_case_table()
    assert (table.shape, table.dtype) == ((sys.maxunicode + 1,), np.int32)
    known = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]
    assert [c for c in known if chr(table[ord(c)]) != lower_by_hand(c)] == []
    assert (table[0xD800:0xE000] == np.arange(0xD800, 0xE000)).all()
    assert (table[table] == table).all()  # what is lowered stays


def test_a_line_break_is_literal_text():
    settings = TextSettings(line_break="(.*)", stripped_characters="")
    assert standardize(arrow(["a(.*)b.*"]), settings).to_pylist() == ["a b.*"]


# Batches


@given(corpus=corpora.filter(has_words), cuts=st.lists(st.integers(0, 8), max_size=4), size=sizes)
def test_batches_of_any_size_give_the_same(corpus, cuts, size):
    settings, whole = settings_of(size, 5), arrow(corpus)
    edges = [0, *sorted(min(cut, len(corpus)) for cut in cuts), len(corpus)]
    parts = [whole.slice(start, stop - start) for start, stop in pairwise(edges)]
    vocabulary = learn_vocabulary([whole], settings)
    assert learn_vocabulary(iter(parts), settings) == vocabulary
    encoded = np.concatenate([encode(part, vocabulary, settings) for part in parts])
    assert np.array_equal(encoded, encode(whole, vocabulary, settings))


def test_no_texts_are_no_rows():
    vocabulary = Vocabulary(("", "[UNK]", "a", "[mask]"))
    assert encode(arrow([]), vocabulary, settings_of(4, 7)).shape == (0, 7)


@pytest.mark.parametrize("corpus", [[], [""], ["... !!", " \t"], ["[mask] [MASK]"]])
def test_a_corpus_without_words_is_refused(corpus):
    with pytest.raises(CorpusError) as caught:
        learn_vocabulary([arrow(corpus)] if corpus else [], TextSettings())
    assert str(caught.value) == "texts: texts with at least one word are required, but none came"


def test_a_word_that_ends_in_a_nul_is_refused_before_anything_is_trained():
    """NumPy cuts it off where Keras reads the vocabulary: the raw-text model would have two equal words."""
    with pytest.raises(CorpusError) as caught:
        learn_vocabulary([arrow(["a a a\0 b"])], TextSettings(), source="reviews.csv")
    assert str(caught.value) == "reviews.csv: words that do not end in a NUL character are required, but 'a\\x00' came"
    settings = settings_of(4, 3)
    assert learn_vocabulary([arrow(["a a a\0 b\0c"])], settings).words == ("", "[UNK]", "a", "[mask]")


# vocabulary.txt


@given(corpus=corpora.filter(has_words))
@example(corpus=["a\x85b c\u2028d \u2029 \x1c \x1d\x1e \ufeff"])
def test_vocabulary_survives_its_file(tmp_path_factory, corpus):
    """Also words with what Python, but not the file, calls the end of a line."""
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.txt"
    vocabulary = learn_vocabulary([arrow(corpus)], TextSettings())
    path.write_bytes(vocabulary.content)
    assert Vocabulary.read(path) == vocabulary
    assert Vocabulary.read(path).digest() == vocabulary.digest()
    assert path.read_bytes().count(b"\n") == len(vocabulary) == vocabulary.mask_id + 1


WHOLE = b"\n[UNK]\nthe\na\n[mask]\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        WHOLE[:-1],
        WHOLE[:-2],
        WHOLE[:-7],
        WHOLE[1:],
        WHOLE.replace(b"[UNK]", b"[unk]"),
        WHOLE.replace(b"the", b"a"),
        WHOLE.replace(b"the", b""),
        WHOLE + b"more\n",
        WHOLE + b"\n",
        WHOLE.replace(b"\n", b"\r\n"),
    ],
)
def test_a_cut_or_edited_vocabulary_is_refused(tmp_path, content):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        Vocabulary.read(path)
    assert str(caught.value) == (
        f"{path}: an empty line, [UNK], different words and [mask] at the end are required; the file was cut or edited"
    )


def test_an_unreadable_vocabulary_is_refused(tmp_path):
    path = tmp_path / "vocabulary.txt"
    with pytest.raises(ArtifactError, match=r"vocabulary\.txt: a vocabulary is required, .*: .*No such file"):
        Vocabulary.read(path)
    path.write_bytes(WHOLE.replace(b"the", b"\xff\xfe"))
    with pytest.raises(ArtifactError, match=r"vocabulary\.txt: a vocabulary is required, .*: 'utf-8' codec"):
        Vocabulary.read(path)
    with pytest.raises(ArtifactError, match="a vocabulary is required"):
        Vocabulary.read(tmp_path)


# A sentence with one [mask]


VOCABULARY = Vocabulary(("", "[UNK]", "the", "film", "[mask]"))


@pytest.mark.parametrize(
    ("sentence", "ids", "place"),
    [
        ("The [mask] film.", [2, 4, 3, 0], 1),
        ("[MASK]!", [4, 0, 0, 0], 0),
        ("the<br />[mask]", [2, 4, 0, 0], 1),
        ("the film film [mask]", [2, 3, 3, 4], 3),
        ("the [mask] film film the film", [2, 4, 3, 3], 1),
    ],
)
def test_a_sentence_is_encoded_with_the_place_of_its_mask(sentence, ids, place):
    found, at = sample_ids([sentence], VOCABULARY, settings_of(5, 4))
    assert (found.tolist(), at.tolist()) == ([ids], [place])


def test_sentences_are_encoded_together_and_the_one_that_is_wrong_is_named():
    found, at = sample_ids(["[mask] film", "the film [mask]"], VOCABULARY, settings_of(5, 4), names=["a", "b"])
    assert (found.tolist(), at.tolist()) == ([[4, 3, 0, 0], [2, 3, 4, 0]], [0, 2])
    for sentence, message in (
        ("film", "b: exactly one [mask] is required"),
        ("un[mask]", "b: one [mask], as a word of its own, is required, but 0 came in 'un[mask]'"),
        ("the film the film [mask]", "b: [mask] among the first 4 words (text.sequence_length) is required"),
    ):
        with pytest.raises(SettingsError, match=f"^{re.escape(message)}"):
            sample_ids(["[mask]", sentence, "[mask]"], VOCABULARY, settings_of(5, 4), names=["a", "b", "c"])
    assert sample_ids([], VOCABULARY, settings_of(5, 4), names=[])[0].shape == (0, 4)


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("", "exactly one [mask] is required, but 0 came in ''"),
        ("the film", "exactly one [mask] is required, but 0 came in 'the film'"),
        ("[mask] [mask]", "exactly one [mask] is required, but 2 came in '[mask] [mask]'"),
        ("the [MASK] film film [mask]", "exactly one [mask] is required, but 2 came"),  # the second would be cut off
        ("\udcff [mask]", r"Unicode text is required, but '\udcff [mask]' came"),
        ("un[mask]", "one [mask], as a word of its own, is required, but 0 came in 'un[mask]'"),
        ("[m.ask] [mask]", "one [mask], as a word of its own, is required, but 2 came in '[m.ask] [mask]'"),
        (
            "the film the film [mask]",
            "[mask] among the first 4 words (text.sequence_length) is required, but it is word 5",
        ),
    ],
)
def test_a_sentence_without_a_single_mask_is_refused(sentence, message):
    with pytest.raises(SettingsError, match=f"^sentences, number 1: {re.escape(message)}"):
        sample_ids([sentence], VOCABULARY, settings_of(5, 4))
    with pytest.raises(SettingsError, match=f"^pretrain.sample_sentence: {re.escape(message)}"):
        sample_ids([sentence], VOCABULARY, settings_of(5, 4), names=["pretrain.sample_sentence"])


def test_a_mask_in_capitals_is_one_where_all_letters_are_lowered():
    settings = TextSettings(vocabulary_size=5, sequence_length=4, lowercase="unicode")
    assert sample_ids(["THE [MASK]"], VOCABULARY, settings)[0].tolist() == [[2, 4, 0, 0]]
    with pytest.raises(SettingsError, match=re.escape("one [mask], as a word of its own, is required, but 0 came")):
        sample_ids(["the un[mask]"], VOCABULARY, settings)


def test_where_letters_keep_their_size_a_mask_is_small():
    settings = TextSettings(vocabulary_size=5, sequence_length=4, lowercase="none")
    assert sample_ids(["the [mask]"], VOCABULARY, settings)[1] == 1
    with pytest.raises(
        SettingsError, match=re.escape("one [mask] in small letters, as a word of its own, is required")
    ):
        sample_ids(["the [MASK]"], VOCABULARY, settings)
