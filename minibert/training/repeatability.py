"""Refuses a training step whose result could depend on which operator happens to finish first.

Five things in a graph do not repeat, or cannot be known to, with ``enable_op_determinism`` on or off:

- *A racing sum.* TensorFlow adds the gradients of a tensor with several consumers in one ``AddN``. With
  two inputs the result is the same in either order; with three or more, ``AddN`` starts from whichever
  input buffer it may reuse at that moment. So no tensor with a gradient may have more than two
  consumers, unless their gradients are added in a fixed order.
- *Unordered calls* of one function that XLA compiles: see `minibert.model.backend.after`.
- *Random operations* with a state of their own: what they draw depends on what was drawn before.
- *Python in the graph*, ``tf.py_function`` and its like: nothing can be said of what it computes.
- *Collective operations* between devices or processes: the order in which they sum is not the graph's.

Of every other operation it is assumed that the same inputs give the same bits. That is TensorFlow's promise with op
determinism on, as runs have it: an operation without a kernel that keeps it raises an error where TensorFlow knows of
it. An operation that TensorFlow does not know of, from a library that was loaded into it, is not found here.

The traced graph is checked before anything is computed, and the graph that TensorFlow makes of it by its
first execution (see `minibert.training.execution`): the rewriting turns ((a + b) + c) + d into a racing sum.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minibert.errors import RepeatabilityError

_SUMS = ("AddN", "AccumulateNV2")
_MOST_TERMS = 2
_INTEGERS = frozenset({3, 4, 5, 6, 9, 17, 22, 23})
"""``types.proto``: int32, uint8, int16, int8, int64, uint16, uint32, uint64."""
_RANDOM = re.compile(
    r"(?!Stateless|RandomGammaGrad$|RandomIndexShuffle$)(Rng|.*(Random|Multinomial|TruncatedNormal|StandardNormal|"
    r"StatefulUniform|NonDeterministicInts|CandidateSampler|SampleDistorted|FractionalMaxPool$|FractionalAvgPool$|"
    r"SeedGenerator))"
)
_PYTHON = re.compile(r"(Eager)?PyFunc(Stateless)?$")
_COLLECTIVE = re.compile(r"_?(Collective|Nccl|XlaAllReduce$|XlaReduceScatter$|CrossReplicaSum$|AllToAll$|Dtensor)")
_REFUSED = {"random operation": _RANDOM, "Python": _PYTHON, "collective operation": _COLLECTIVE}
_COMPILED = "_XlaMustCompile"


@dataclass(frozen=True)
class Hazard:
    """A reason why a graph might not repeat.

    Attributes:
        kind: ``racing sum``, ``unordered calls``, ``random operation``, ``Python`` or ``collective operation``.
        operation: The operation's name in the graph; of unordered calls, the compiled function's.
        layers: What it comes from: the operations whose gradients are added, the calls, or the layer.
    """

    kind: str
    operation: str
    layers: tuple[str, ...]

    @property
    def explanation(self) -> str:
        """What was required and what is there, in one line."""
        names = ", ".join(dict.fromkeys(self.layers))
        if self.kind == "racing sum":
            return (
                f"at most two consumers of a tensor with a gradient are required, but {len(self.layers)} gradients are "
                f"added in a racing order ({self.operation}): {names}"
            )
        if self.kind == "unordered calls":
            return (
                f"calls of a compiled function in a fixed order are required, but nothing orders two calls of "
                f"{self.operation}: {names}"
            )
        if self.kind == "Python":
            return f"TensorFlow's own operations are required, but {self.operation} calls Python: {names}"
        if self.kind == "collective operation":
            return f"sums on one device are required, but {self.operation} is between devices: {names}"
        return f"random numbers from named streams are required, but {self.operation} has a state of its own: {names}"


def require_repeatable(graph: Any) -> None:
    """Checks a traced graph, and fails closed.

    Args:
        graph: A TensorFlow graph, with the functions that it calls.

    Raises:
        RepeatabilityError: It has a hazard, or calls a function that cannot be looked at; the message names
            the layers.
    """
    refuse(hazards(graph.as_graph_def()), "training step")


def refuse(found: list[Hazard], what: str) -> None:
    """Raises for the first hazard, if there is one.

    Raises:
        RepeatabilityError: There is one.
    """
    if found:
        raise RepeatabilityError(f"{what}: {found[0].explanation}")


def hazards(graph: Any, *, is_whole: bool = True) -> list[Hazard]:
    """Every hazard of a graph and of the functions that it calls, in no particular order.

    XLA fixes the order of the sums that it compiles, but a random operation is one there, too, and so are Python and
    collective operations.

    Args:
        graph: A ``GraphDef`` with its library of functions.
        is_whole: Whether every path is in it. One device's part of a graph is not: two calls in it may have their order
            by way of another device.

    Raises:
        RepeatabilityError: A function that is called is not in the library, so it cannot be looked at.
    """
    found = dict.fromkeys(_Graph(graph).hazards())
    return [hazard for hazard in found if is_whole or hazard.kind != "unordered calls"]


class _Graph:
    """A graph and its library of functions, by name."""

    def __init__(self, graph: Any) -> None:
        self._nodes = list(graph.node)
        self._library = {function.signature.name: function for function in graph.library.function}
        self._compiled: dict[str, frozenset[str]] = {}

    def hazards(self) -> Iterator[Hazard]:
        """Walks the graph, then every function that something reachable calls."""
        yield from self._hazards_of(self._nodes, compiled=False)
        seen: set[tuple[str, bool]] = set()
        waiting = [(callee, False, node) for node in self._nodes for callee in self._called(node)]
        while waiting:
            name, inside, caller = waiting.pop()
            compiled = inside or self._is_compiled(name, caller)
            if (name, compiled) in seen:
                continue
            seen.add((name, compiled))
            body = self._body(name, caller)
            yield from self._hazards_of(body, compiled=compiled)
            waiting += [(callee, compiled, node) for node in body for callee in self._called(node)]

    def _hazards_of(self, nodes: list[Any], *, compiled: bool) -> Iterator[Hazard]:
        """The hazards of one body."""
        for node in nodes:
            for kind, operations in _REFUSED.items():
                if operations.match(node.op):
                    yield Hazard(kind, node.name, (_layer(node.name),))
            if not compiled and _is_racing_sum(node):
                inputs = [_operation(name) for name in node.input if not name.startswith("^")]
                yield Hazard("racing sum", node.name, tuple(_layer(name) for name in inputs))
        if not compiled:
            yield from self._unordered_calls(nodes)

    def _unordered_calls(self, nodes: list[Any]) -> Iterator[Hazard]:
        """Pairs of operations that run the same compiled function, with no path from one to the other."""
        callers: dict[str, list[str]] = defaultdict(list)
        for node in nodes:
            for function in self._compiled_by(node):
                callers[function].append(node.name)
        inputs = {node.name: [_operation(name) for name in node.input] for node in nodes}
        before: dict[str, set[str]] = {}
        for function, names in callers.items():
            if len(names) < 2:
                continue
            before |= {name: _ancestors(name, inputs) for name in names if name not in before}
            for one, two in itertools.combinations(names, 2):
                if one not in before[two] and two not in before[one]:
                    yield Hazard("unordered calls", function, (_layer(one), _layer(two)))

    def _compiled_by(self, node: Any) -> frozenset[str]:
        """The compiled functions that an operation runs, itself or through others."""
        found: frozenset[str] = frozenset()
        for name in self._called(node):
            if self._is_compiled(name, node):
                found |= {name}
                continue
            if name not in self._compiled:
                self._compiled[name] = frozenset()  # a function that calls itself adds nothing by that
                inner = (self._compiled_by(other) for other in self._body(name, node))
                self._compiled[name] = frozenset().union(*inner)
            found |= self._compiled[name]
        return found

    def _is_compiled(self, name: str, caller: Any) -> bool:
        return _flag(caller) or (name in self._library and _flag(self._library[name]))

    def _body(self, name: str, caller: Any) -> list[Any]:
        if name not in self._library:
            raise RepeatabilityError(
                f"training step: the graph of every function is required, but {name!r}, which {caller.name!r} calls, "
                "has none to look at"
            )
        return list(self._library[name].node_def)

    def _called(self, node: Any) -> Iterator[str]:
        """Names of the functions in an operation's attributes, or of the one that it is."""
        if node.op in self._library:
            yield node.op
        for value in node.attr.values():
            kind = value.WhichOneof("value")
            if kind == "func":
                yield value.func.name
            elif kind == "list":
                yield from (function.name for function in value.list.func)


def _flag(thing: Any) -> bool:
    return _COMPILED in thing.attr and bool(thing.attr[_COMPILED].b)


def _is_racing_sum(node: Any) -> bool:
    terms = sum(not name.startswith("^") for name in node.input)
    return node.op in _SUMS and terms > _MOST_TERMS and node.attr["T"].type not in _INTEGERS


def _ancestors(name: str, inputs: dict[str, list[str]]) -> set[str]:
    """Every operation that runs before this one."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for before in inputs.get(waiting.pop(), ()):
            if before not in found:
                found.add(before)
                waiting.append(before)
    return found


def _operation(name: str) -> str:
    """``^a/b`` and ``a/b:0`` and, in a function, ``a/b:output:0`` -> ``a/b``."""
    return name.removeprefix("^").partition(":")[0]


def _layer(name: str) -> str:
    """``gradient_tape/masked_bert_model/encoder_0_ffn/inner/MatMul`` -> ``encoder_0_ffn/inner``."""
    parts = [part for part in name.split("/") if part != "gradient_tape"]
    return "/".join(parts[1:-1]) or name
