"""The tokenizers library and transformers' masking, as users of PyTorch have them, at our settings.

A tokenizer of whole words, with the notebooks' standardization: with the same vocabulary it gives the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from benchmarks.hugging_face import DataCollatorForLanguageModeling, PreTrainedTokenizerFast
from minibert.mask_word import MASK
from minibert.settings import RunSettings, TextSettings
from minibert.text import UNKNOWN, Vocabulary, stripped_pattern

_PADDING = "[PAD]"  # no empty word: the library takes it for one that was not given


def build_tokenizer(settings: TextSettings, words: Sequence[str] = (_PADDING, UNKNOWN)) -> Any:
    """A tokenizer with words by id; it can learn others."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(settings.line_break, " "),
            normalizers.Replace(Regex(stripped_pattern(settings.stripped_characters)), ""),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(settings.sequence_length)
    tokenizer.enable_padding(length=settings.sequence_length, pad_id=0, pad_token=_PADDING)
    return tokenizer


def learned_words(texts: list[str], settings: TextSettings) -> list[str]:
    """The words by id that the library's trainer learns, with ``[mask]`` in the place of the least frequent one."""
    tokenizer, size = build_tokenizer(settings), settings.vocabulary_size
    trainer = trainers.WordLevelTrainer(vocab_size=size - 1, show_progress=False, special_tokens=[_PADDING, UNKNOWN])
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return [*sorted(ids, key=ids.__getitem__), MASK]


def build_encoder(settings: TextSettings, vocabulary: Vocabulary) -> Callable[[list[str]], np.ndarray]:
    """Raw texts to ids, int64 (texts, sequence)."""
    tokenizer = build_tokenizer(settings, (_PADDING, *vocabulary.words[1:]))
    return lambda texts: np.array([found.ids for found in tokenizer.encode_batch_fast(texts)])


def build_masker(settings: RunSettings) -> Callable[[Any], tuple[Any, Any]]:
    """Ids, int64 (batch, sequence), to masked ones and labels, -100 where none is selected; unseeded."""
    masking, size = settings.masking, settings.masking.required_vocabulary_size
    words = (_PADDING, UNKNOWN, *(f"word{i}" for i in range(2, size - 1)), MASK)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(settings.text, words),
        pad_token=_PADDING,
        unk_token=UNKNOWN,
        mask_token=MASK,
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=masking.selection_rate)
    last_protected = max(masking.protected_ids)  # the first ids, of all presets

    def mask(token_ids: Any) -> tuple[Any, Any]:
        token_ids = torch.as_tensor(token_ids)
        special = token_ids <= last_protected
        found: tuple[Any, Any] = collator.torch_mask_tokens(token_ids.clone(), special_tokens_mask=special)
        return found

    return mask


def unpacked(token_ids: np.ndarray, batch: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `build_masker`'s function made of ids, as masked ids, labels and weights, each of the ids' shape."""
    masked, targets = (array.numpy() for array in batch)
    labels, weight = token_ids.copy(), np.zeros(token_ids.shape)
    at = np.nonzero(targets != -100)
    labels[at], weight[at] = targets[at], 1
    return masked, labels, weight
