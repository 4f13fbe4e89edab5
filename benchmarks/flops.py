"""How much arithmetic a training step or an answer must do, by formula."""

from __future__ import annotations

from minibert.settings import RunSettings


def step_flops(settings: RunSettings, step: str, *, rows: float) -> float:
    """Floating-point operations of a training step's matrix products, forward and backward.

    A product of a (rows, m) by an (m, n) matrix takes 2 rows m n operations, and backward the same again
    for each of its two gradients. Attention's scores, and the sum of values that they weight, are such
    products of (sequence, key size) matrices in each head. The masked-LM loss reads the selected positions only, so
    of the last block all other tokens need their key and value alone. A frozen encoder is only run forward, and the
    first layer of the classifier on it needs no gradient of its input.

    Args:
        settings: The shape.
        step: ``masked_lm``, ``frozen`` or ``unfrozen``.
        rows: Selected positions of a batch: all that goes through the last block and the vocabulary projection.
    """
    model, length = settings.model, settings.text.sequence_length
    batch = settings.pretrain.batch_size if step == "masked_lm" else settings.finetune.batch_size
    key_value, of_query = _position_flops(settings)
    block = batch * length * (key_value + of_query)
    if step == "masked_lm":
        last = batch * length * key_value + rows * of_query
        return 3.0 * ((model.blocks - 1) * block + last) + head_flops(settings, rows=rows)
    return (1.0 if step == "frozen" else 3.0) * model.blocks * block + classifier_flops(settings, step)


def classifier_flops(settings: RunSettings, step: str) -> float:
    """Those of a classifier's layers on the encoder.

    Args:
        settings: The shape.
        step: ``frozen`` or ``unfrozen``.
    """
    outer = 2 * settings.finetune.batch_size * settings.finetune.classifier_size
    inner = outer * settings.model.hidden_size
    return (2.0 if step == "frozen" else 3.0) * inner + 3.0 * outer


def head_flops(settings: RunSettings, *, rows: float) -> float:
    """Those of the masked-LM step's vocabulary projection.

    Args:
        settings: The shape.
        rows: Selected positions of a batch.
    """
    return 3.0 * 2 * rows * settings.model.hidden_size * settings.masking.required_vocabulary_size


def answer_flops(settings: RunSettings, answer: str, *, texts: int) -> float:
    """Those of answers of a finished model, which is only run forward.

    Args:
        settings: The shape.
        answer: ``classify``: a probability from all positions; ``fill_mask``: the words for one position, which alone
            goes through the last block and the vocabulary projection.
        texts: How many are answered.
    """
    model, length = settings.model, settings.text.sequence_length
    key_value, of_query = _position_flops(settings)
    block = length * (key_value + of_query)
    if answer == "fill_mask":
        head = 2 * model.hidden_size * settings.masking.required_vocabulary_size
        return float(texts * ((model.blocks - 1) * block + length * key_value + of_query + head))
    classifier = 2 * (model.hidden_size + 1) * settings.finetune.classifier_size
    return float(texts * (model.blocks * block + classifier))


def _position_flops(settings: RunSettings) -> tuple[int, int]:
    """Of a block, for one position, forward: its key and value, and all that comes of its query."""
    hidden = settings.model.hidden_size
    of_query = (
        2 * hidden * hidden  # query
        + 2 * 2 * settings.text.sequence_length * hidden  # scores, weighted values
        + 2 * hidden * hidden  # output
        + 2 * 2 * hidden * settings.model.feed_forward_size
    )
    return 2 * hidden * 2 * hidden, of_query
