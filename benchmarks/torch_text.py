"""The tokenizers library and transformers' masking, as users of PyTorch have them, at our settings.

A tokenizer of whole words, with the notebooks' standardization: with the same vocabulary it gives the same ids.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import numpy as np
import tokenizers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from benchmarks.hugging_face import DataCollatorForLanguageModeling, PreTrainedTokenizerFast
from minibert.settings import MaskingSettings, TextSettings
from minibert.text import Vocabulary

PADDING, UNKNOWN, MASK = "[PAD]", "[UNK]", "[mask]"
_REMOVED = "".join(f"\\{mark}" for mark in string.punctuation if mark not in '[]"')


def build_tokenizer(settings: TextSettings, vocabulary: Vocabulary | None = None) -> Any:
    """A tokenizer with a vocabulary, or one that can learn it.

    Args:
        settings: Of texts.
        vocabulary: Words by id; None: none yet.
    """
    words = (PADDING, *vocabulary.words[1:]) if vocabulary is not None else (PADDING, UNKNOWN)
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    made.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace("<br />", " "),
            normalizers.Replace(Regex(f"[{_REMOVED}]"), ""),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.enable_truncation(settings.sequence_length)
    made.enable_padding(length=settings.sequence_length, pad_id=0, pad_token=PADDING)
    return made


def learned_words(texts: list[str], settings: TextSettings) -> list[str]:
    """The words by id that the library's trainer learns, with ``[mask]`` in the place of the least frequent one."""
    tokenizer, size = build_tokenizer(settings), settings.vocabulary_size
    trainer = trainers.WordLevelTrainer(vocab_size=size - 1, show_progress=False, special_tokens=[PADDING, UNKNOWN])
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return [*sorted(ids, key=ids.__getitem__), MASK]


def build_encoder(settings: TextSettings, vocabulary: Vocabulary) -> Callable[[list[str]], np.ndarray]:
    """Raw texts to ids, int64 (texts, sequence)."""
    tokenizer = build_tokenizer(settings, vocabulary)
    return lambda texts: np.array([found.ids for found in tokenizer.encode_batch_fast(texts)])


def build_masker(settings: MaskingSettings) -> Callable[[Any], tuple[Any, Any]]:
    """Ids (batch, sequence) to masked ones and labels, -100 where none is selected; unseeded."""
    size = settings.required_vocabulary_size
    words = {PADDING: 0, UNKNOWN: 1, **{f"word{i}": i for i in range(2, size - 1)}, MASK: size - 1}
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(models.WordLevel(words, unk_token=UNKNOWN)),
        pad_token=PADDING,
        unk_token=UNKNOWN,
        mask_token=MASK,
    )
    collator = DataCollatorForLanguageModeling(made, mlm=True, mlm_probability=settings.selection_rate)

    def masked(token_ids: Any) -> tuple[Any, Any]:
        found: tuple[Any, Any] = collator.torch_mask_tokens(token_ids.clone(), special_tokens_mask=token_ids <= 2)
        return found

    return masked
