"""Transformers' ``BertForMaskedLM`` on PyTorch at our shapes, gathering the masked positions first, or not.

The first is what a careful user of both would write: the encoder on the whole batch, the vocabulary
projection on the selected positions only, and PyTorch's fused Adam. The second is what the library does
when it is given labels: logits for every token, and a label of -100 where none counts.

The architecture is the notebooks' where the configuration allows it: ReLU in the blocks, no dropout of the
attention's probabilities. What differs: a layer norm behind the embeddings, which have a segment's too and are
dropped out, a dense layer with a norm before the projection, and the projection tied to the embedding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

from benchmarks.workloads import Parts, masked_lm_batches
from minibert.batches import Arrays
from minibert.settings import RunSettings

DEVICES = {"cpu": "cpu", "cuda": "cuda", "metal": "mps"}


class TorchStep:
    """PyTorch's masked-LM training step as a workload.

    Args:
        settings: The shape.
        step: Only ``masked_lm``.
        device: ``cpu``, ``cuda`` or ``metal``.
    """

    def __init__(self, settings: RunSettings, step: str, device: str = "cpu") -> None:
        assert step == "masked_lm"
        model, length = settings.model, settings.text.sequence_length
        self._device = torch.device(DEVICES[device])
        config = BertConfig(
            vocab_size=settings.masking.required_vocabulary_size,
            hidden_size=model.hidden_size,
            num_hidden_layers=model.blocks,
            num_attention_heads=model.heads,
            intermediate_size=model.feed_forward_size,
            hidden_act="relu",
            hidden_dropout_prob=model.dropout_rate,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=length,
            layer_norm_eps=model.layer_norm_epsilon,
        )
        self.model = BertForMaskedLM(config).to(self._device)
        self.model.train()
        self._optimizer = torch.optim.Adam(
            self.model.parameters(), lr=settings.pretrain.learning_rate, fused=device != "metal"
        )
        self.batches = [self._inputs(batch) for batch in masked_lm_batches(settings)]

    def __call__(self, number: int) -> float:
        token_ids, positions, labels = self.batches[number % len(self.batches)]
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.loss_sum(token_ids, positions, labels)
        loss.backward()
        self._optimizer.step()
        self.model.cls.predictions.bias[0].item()  # waits for the update
        return loss.item() / len(labels)

    def weights(self) -> Parts:
        parts = {"encoder": self.model.bert, "head": self.model.cls}
        return {name: [weight.detach().cpu().numpy() for weight in part.parameters()] for name, part in parts.items()}

    def loss_sum(self, token_ids: Any, positions: Any, labels: Any) -> Any:
        """The selected tokens' losses, summed."""
        hidden = self.model.bert(token_ids).last_hidden_state
        logits = self.model.cls(hidden.reshape(-1, hidden.shape[-1])[positions])
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    def _inputs(self, batch: Arrays) -> tuple[Any, Any, Any]:
        is_selected = batch["sample_weight"] == 1
        arrays = (batch["token_ids"], batch["positions"][is_selected], batch["labels"][is_selected])
        token_ids, positions, labels = (torch.from_numpy(a.astype(np.int64)).to(self._device) for a in arrays)
        return token_ids, positions, labels


class FullTorchStep(TorchStep):
    """The same with logits for every token."""

    def loss_sum(self, token_ids: Any, positions: Any, labels: Any) -> Any:
        """The library's own mean over the selected tokens, times their number."""
        every = torch.full((token_ids.numel(),), -100, device=token_ids.device)
        every[positions] = labels
        return self.model(token_ids, labels=every.reshape(token_ids.shape)).loss * len(labels)
