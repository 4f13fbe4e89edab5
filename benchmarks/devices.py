"""On which device a process trains, and in which state."""

from __future__ import annotations

import os
import subprocess

from minibert.allocator import keep_freed_memory
from minibert.errors import DeviceError
from minibert.quiet import quiet_tensorflow

DEVICES = ("cpu", "cuda", "metal")


def as_a_run(device: str = "cpu") -> None:
    """Puts this process into the state in which a run trains; called before TensorFlow is imported.

    That is its allocator, TensorFlow's own log kept quiet, op determinism, and float32 products in float32.

    Raises:
        DeviceError: The device is not there.
    """
    keep_freed_memory()
    claim_tensorflow_device(device)
    from minibert.stages import set_up_tensorflow

    set_up_tensorflow()


def claim_tensorflow_device(device: str) -> None:
    """Leaves TensorFlow the wanted device only, float32 products in float32, and of a GPU's memory what it needs.

    Several processes share a device where steps are interleaved, and by default the first would take all memory. By
    default, too, products on a GPU would be TensorFloat-32, of which PyTorch and a run make no use.

    Raises:
        DeviceError: It is not there.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    quiet_tensorflow()
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        return
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus or tf.test.is_built_with_cuda() != (device == "cuda"):
        raise DeviceError(f"--device {device}: TensorFlow {tf.__version__} sees no such device")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)


def require_torch_device(device: str) -> None:
    """PyTorch sees the device.

    Raises:
        DeviceError: It does not.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "metal": torch.backends.mps.is_available()}
    if not there[device]:
        raise DeviceError(f"--device {device}: torch {torch.__version__} sees no such device")


def nvidia_gpus() -> list[str]:
    """Name, driver and clocks of each NVIDIA GPU, as its own tool gives them."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
