"""Whether TensorFlow computes with oneDNN: the step's attention takes another path then."""

from __future__ import annotations

import importlib
import sys


def onednn_is_on() -> bool | None:
    """Whether TensorFlow's CPU kernels use oneDNN; None where TensorFlow is not imported, or does not say.

    The default depends on the processor: on Linux TensorFlow 2.21 turns it on where there are instructions for neural
    networks (AVX-512 VNNI or BF16, AVX-VNNI, AMX), and ``TF_ENABLE_ONEDNN_OPTS`` decides otherwise.
    """
    if "tensorflow" not in sys.modules:
        return None
    try:
        port = importlib.import_module("tensorflow.python.util._pywrap_util_port")
        return bool(port.IsMklEnabled())
    except (ImportError, AttributeError):  # not public, so it may go
        return None
