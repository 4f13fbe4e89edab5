"""The notebooks' masking, written anew from their description: the workload that ours is measured against.

Unseeded NumPy over the whole array, three uniform numbers for each token; nothing is left out and
nothing is added. It does not protect a ``[mask]`` that stands in the text, as the notebooks do not.
"""

from __future__ import annotations

import numpy as np

# The global generator is the point of comparison.
# ruff: noqa: NPY002


def mask_tokens(token_ids: np.ndarray, mask_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masked ids, labels and float64 weights, each of the input's shape.

    Args:
        token_ids: Integers, (examples, sequence).
        mask_id: The last id of the vocabulary.
    """
    selected = np.random.rand(*token_ids.shape) < 0.15
    selected[token_ids <= 2] = False
    selected_labels = np.full(token_ids.shape, -1)
    selected_labels[selected] = token_ids[selected]

    masked = np.copy(token_ids)
    replaced = selected & (np.random.rand(*token_ids.shape) < 0.9)
    masked[replaced] = mask_id
    at_random = replaced & (np.random.rand(*token_ids.shape) < 1 / 9)
    masked[at_random] = np.random.randint(3, mask_id, at_random.sum())

    sample_weight = np.ones(token_ids.shape)
    sample_weight[selected_labels == -1] = 0
    return masked, np.copy(token_ids), sample_weight
