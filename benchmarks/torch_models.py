"""Transformers' ``BertForMaskedLM`` and ``BertForSequenceClassification`` on PyTorch at our shapes.

The masked language model gathers the masked positions first, or not. The first is what a careful user of both would
write: the encoder on the whole batch, the vocabulary projection on the selected positions only, and PyTorch's fused
Adam. The second is what the library does when it is given labels: logits for every token, and a label of -100 where
none counts.

The architecture is the notebooks' where the configuration allows it: ReLU in the blocks, no dropout of the
attention's probabilities. What differs: a layer norm behind the embeddings, which have a segment's too and are
dropped out, a dense layer with a norm before the projection, and the projection tied to the embedding. The classifier
pools the first position with a dense layer of the encoder, and has one dense layer of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.hugging_face import BertConfig, BertForMaskedLM, BertForSequenceClassification
from benchmarks.torch_text import build_encoder, build_masker
from benchmarks.workloads import Parts, batches_of
from minibert.batches import Arrays
from minibert.settings import RunSettings
from minibert.text import Vocabulary

DEVICES = {"cpu": "cpu", "cuda": "cuda", "metal": "mps"}


class TorchStep:
    """PyTorch's training step as a workload.

    Args:
        settings: The shape.
        step: One of `benchmarks.workloads.STEPS`.
        device: ``cpu``, ``cuda`` or ``metal``.
    """

    def __init__(self, settings: RunSettings, step: str, device: str = "cpu") -> None:
        self.device = torch.device(DEVICES[device])
        is_masked_lm = step == "masked_lm"
        make, inputs = (
            (BertForMaskedLM, self._masked_lm_inputs)
            if is_masked_lm
            else (BertForSequenceClassification, self._classifier_inputs)
        )
        self.model = make(_config(settings)).to(self.device)
        self.model.train()
        self.model.bert.requires_grad_(step != "frozen")
        self._head = self.model.cls if is_masked_lm else self.model.classifier
        self._optimizer = torch.optim.Adam(
            [weight for weight in self.model.parameters() if weight.requires_grad],
            lr=settings.pretrain.learning_rate if is_masked_lm else settings.finetune.learning_rate,
            fused=device != "metal",
        )
        self.batches = [inputs(batch) for batch in batches_of(settings, step)]

    def __call__(self, number: int) -> float:
        return self.update(*self.batches[number % len(self.batches)])

    def update(self, token_ids: Any, positions: Any, labels: Any) -> float:
        """One update; waits for it, and gives the mean loss.

        Args:
            token_ids: int64, (batch, sequence).
            positions: int64 places in the flattened ids, (selected,); None for a classifier.
            labels: int64, (selected,) or (batch,).
        """
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.loss_sum(token_ids, positions, labels)
        loss.backward()
        self._optimizer.step()
        next(self._head.parameters()).flatten()[0].item()  # waits for the update
        return loss.item() / len(labels)

    def weights(self) -> Parts:
        parts = {"encoder": self.model.bert, "head": self._head}
        return {name: [weight.detach().cpu().numpy() for weight in part.parameters()] for name, part in parts.items()}

    def loss_sum(self, token_ids: Any, positions: Any, labels: Any) -> Any:
        """The losses of the selected tokens, or of the examples, summed."""
        if positions is None:
            return self.model(token_ids, labels=labels).loss * len(labels)
        hidden = self.model.bert(token_ids).last_hidden_state
        logits = self.model.cls(hidden.reshape(-1, hidden.shape[-1])[positions])
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    def _masked_lm_inputs(self, batch: Arrays) -> tuple[Any, Any, Any]:
        is_selected = batch["sample_weight"] == 1
        return self._on_device(batch["token_ids"], batch["positions"][is_selected], batch["labels"][is_selected])

    def _classifier_inputs(self, batch: Arrays) -> tuple[Any, Any, Any]:
        token_ids, labels = self._on_device(batch["token_ids"], batch["labels"])
        return token_ids, None, labels

    def _on_device(self, *arrays: Any) -> Any:
        return tuple(torch.from_numpy(array.astype(np.int64)).to(self.device) for array in arrays)


class FullTorchStep(TorchStep):
    """The same with logits for every token; of the masked language model alone."""

    def loss_sum(self, token_ids: Any, positions: Any, labels: Any) -> Any:
        """The library's own mean over the selected tokens, times their number."""
        every = torch.full((token_ids.numel(),), -100, device=token_ids.device)
        every[positions] = labels
        return self.model(token_ids, labels=every.reshape(token_ids.shape)).loss * len(labels)


class TorchEpoch:
    """An epoch over a ``DataLoader`` that masks each batch anew by transformers' collator; its step is `TorchStep`'s.

    Args:
        settings: The shape.
        token_ids: Integers, (examples, sequence).
        device: ``cpu``, ``cuda`` or ``metal``.
    """

    def __init__(self, settings: RunSettings, token_ids: np.ndarray, device: str = "cpu") -> None:
        self._step = TorchStep(settings, "masked_lm", device)
        mask = build_masker(settings)
        self._batches = torch.utils.data.DataLoader(
            torch.from_numpy(token_ids.astype(np.int64)),
            batch_size=settings.pretrain.batch_size,
            shuffle=True,
            collate_fn=lambda rows: mask(torch.stack(rows)),
        )
        self.losses: list[float] = []

    def __call__(self) -> None:
        losses = []
        for token_ids, labels in self._batches:
            positions = torch.nonzero(labels.flatten() != -100)[:, 0]
            arrays = (token_ids, positions, labels.flatten()[positions])
            losses.append(self._step.update(*(array.to(self._step.device) for array in arrays)))
        self.losses.append(float(np.mean(losses)))


class TorchAnswers:
    """An untrained model that answers raw text.

    Args:
        settings: The shape.
        vocabulary: Words by id.
        answer: ``classify`` (`logits`) or ``fill_mask`` (`fill` and `fill_by_hand`).
        device: ``cpu``, ``cuda`` or ``metal``.
    """

    def __init__(self, settings: RunSettings, vocabulary: Vocabulary, answer: str, device: str = "cpu") -> None:
        self._device, self._words, self._mask_id = torch.device(DEVICES[device]), vocabulary.words, vocabulary.mask_id
        self.encode = build_encoder(settings.text, vocabulary)
        of_answer = BertForSequenceClassification if answer == "classify" else BertForMaskedLM
        self._model = of_answer(_config(settings)).to(self._device).eval()

    @torch.inference_mode()
    def logits(self, texts: list[str], batch_size: int) -> np.ndarray:
        """The logit of label 1, float (texts,)."""
        batches = torch.from_numpy(self.encode(texts)).split(batch_size)
        found = torch.cat([self._model(batch.to(self._device)).logits for batch in batches]).cpu().numpy()
        return found[:, 1] - found[:, 0]

    @torch.inference_mode()
    def fill(self, sentences: list[str], top_k: int) -> list[list[str]]:
        """The likeliest words for each sentence's ``[mask]``, whose position alone is projected."""
        token_ids, rows, places = self._inputs(sentences)
        return self._likeliest(self._model.cls(self._model.bert(token_ids).last_hidden_state[rows, places]), top_k)

    @torch.inference_mode()
    def fill_by_hand(self, sentences: list[str], top_k: int) -> list[list[str]]:
        """The same of logits at every position, as transformers' pipeline has them."""
        token_ids, rows, places = self._inputs(sentences)
        return self._likeliest(self._model(token_ids).logits[rows, places], top_k)

    def _inputs(self, sentences: list[str]) -> tuple[Any, Any, Any]:
        token_ids = torch.from_numpy(self.encode(sentences)).to(self._device)
        return token_ids, *torch.nonzero(token_ids == self._mask_id, as_tuple=True)

    def _likeliest(self, logits: Any, top_k: int) -> list[list[str]]:
        return [[self._words[i] for i in row] for row in logits.topk(top_k).indices.tolist()]


def _config(settings: RunSettings) -> Any:
    model = settings.model
    return BertConfig(
        vocab_size=settings.masking.required_vocabulary_size,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.blocks,
        num_attention_heads=model.heads,
        intermediate_size=model.feed_forward_size,
        hidden_act="relu",
        hidden_dropout_prob=model.dropout_rate,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=settings.text.sequence_length,
        layer_norm_eps=model.layer_norm_epsilon,
        num_labels=2,
    )
