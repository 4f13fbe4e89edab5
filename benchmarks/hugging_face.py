"""What is used of transformers, imported so that TensorFlow may be in the process, too.

Triton, which PyTorch's wheels bring on Linux, and TensorFlow each have an LLVM of their own, and where one is loaded,
loading the other ends the process (torch 2.14 beside TensorFlow 2.21). Nothing here compiles with it, so it is hidden.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("triton", None)  # as if it were not installed

from transformers import (  # noqa: E402
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
)

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForSequenceClassification",
    "DataCollatorForLanguageModeling",
    "PreTrainedTokenizerFast",
]
