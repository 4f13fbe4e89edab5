"""Refuses a training step whose result could depend on which operator happens to finish first.

TensorFlow adds the gradients of a tensor with several consumers in one ``AddN``. With two inputs the
result is the same in either order; with three or more, ``AddN`` starts from whichever input buffer it
may reuse at that moment, so the order of a floating-point sum is a race, with
``enable_op_determinism`` on or off. So no tensor with a gradient may have more than two consumers,
unless their gradients are added in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minibert.errors import RepeatabilityError

_RACING_SUMS = ("AddN", "AccumulateNV2")


@dataclass(frozen=True)
class RacingSum:
    """A sum of three or more floating-point tensors in no fixed order.

    Attributes:
        operation: The operation's name in the graph.
        layers: Names of the operations whose gradients it adds.
    """

    operation: str
    layers: tuple[str, ...]


def racing_sums(graph: Any) -> list[RacingSum]:
    """All racing sums of a traced graph and of the functions it calls, compiled ones aside.

    XLA fixes the order of the sums that it compiles.
    """
    found = []
    for operation in _operations(graph):
        is_float = operation.outputs and operation.outputs[0].dtype.is_floating
        if operation.type in _RACING_SUMS and len(operation.inputs) > 2 and is_float:
            found.append(RacingSum(operation.name, tuple(_forward_name(i.op.name) for i in operation.inputs)))
    return found


def require_repeatable(graph: Any) -> None:
    """Fails closed.

    Raises:
        RepeatabilityError: The graph has a racing sum; the message names the layers that feed it.
    """
    sums = racing_sums(graph)
    if sums:
        layers = ", ".join(dict.fromkeys(sums[0].layers))
        raise RepeatabilityError(
            f"training step: at most two consumers of a tensor with a gradient are required, but "
            f"{len(sums[0].layers)} gradients are added in a racing order ({sums[0].operation}): {layers}"
        )


def _operations(graph: Any) -> Iterator[Any]:
    """The operations of a graph and of every function in it that is not compiled."""
    seen: set[int] = set()  # not by name: a graph is named as its Python function, and many of these are
    waiting = [graph]
    while waiting:
        current = waiting.pop()
        for operation in current.get_operations():
            yield operation
            for function in _called(current, operation):
                if id(function) not in seen:
                    seen.add(id(function))
                    waiting.append(function)


def _called(graph: Any, operation: Any) -> Iterator[Any]:
    for name in operation.node_def.attr:
        attribute = operation.node_def.attr[name]
        if attribute.HasField("func"):
            if operation.node_def.attr["_XlaMustCompile"].b:
                continue
            definition = graph._get_function(attribute.func.name)
            inner = getattr(definition, "graph", None)
            if inner is not None:
                yield inner


def _forward_name(name: str) -> str:
    """``gradient_tape/masked_bert_model/encoder_0_ffn/inner/MatMul`` -> ``encoder_0_ffn/inner``."""
    parts = [part for part in name.split("/") if part != "gradient_tape"]
    return "/".join(parts[1:-1]) or name
