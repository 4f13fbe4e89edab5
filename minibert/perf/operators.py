"""What stands in a traced graph: operators by name, in everything that it calls, and the arithmetic of its products.

A change of the graph shows here at once and without noise, on any machine: the histogram of the same
code is the same in every process of the same version of TensorFlow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

_PRODUCTS = {"MatMul": "transpose_a", "BatchMatMul": "adj_x", "BatchMatMulV2": "adj_x", "BatchMatMulV3": "adj_x"}
"""A matrix product -> its attribute that says whether the first matrix is transposed."""
_OTHERWISE = "else_branch"
"""A conditional's attribute: the function for a condition that does not hold."""


def operator_histogram(graph_definition: Any) -> dict[str, int]:
    """How often each operator stands in a graph, with the functions that it calls.

    A function counts at every place that calls it; the body of a loop counts once for each loop.

    Args:
        graph_definition: A ``GraphDef``, as a traced function's ``graph.as_graph_def()`` gives it.

    Returns:
        Operator to count, in the order of the names.
    """
    functions = {function.signature.name: function.node_def for function in graph_definition.library.function}
    counts = _counted(graph_definition.node, functions, {})
    return {name: counts[name] for name in sorted(counts)}


def product_flops(graph: Any) -> int | None:
    """Floating-point operations of a graph's matrix products: 2 m k n for (m, k) by (k, n), of each in a batch.

    Unlike a formula of the settings it moves with the code: a wider, a longer or a further product shows here. Of a
    conditional, what is done where its condition does not hold is left out.

    Args:
        graph: A traced function's ``graph``, all of whose shapes are known.

    Returns:
        None where they are not known: of a product, or of one inside a function that the graph calls.
    """
    definition = graph.as_graph_def()
    functions = {function.signature.name: function.node_def for function in definition.library.function}
    if any(node.op in _PRODUCTS for name in _reached(definition.node, functions) for node in functions[name]):
        return None
    total = 0
    for operation in graph.get_operations():
        if operation.type not in _PRODUCTS:
            continue
        left, output = operation.inputs[0].shape, operation.outputs[0].shape
        if not (left.is_fully_defined() and output.is_fully_defined()):
            return None
        is_transposed = operation.get_attr(_PRODUCTS[operation.type])
        total += 2 * output.num_elements() * left[-2 if is_transposed else -1]
    return total


def _reached(nodes: Any, functions: dict[str, Any]) -> set[str]:
    """The functions that a graph calls, itself or through others, unless it is where a condition does not hold."""
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        otherwise = {node.attr[_OTHERWISE].func.name} if _OTHERWISE in node.attr else set()
        new = (set(_called(node)) - otherwise - found) & functions.keys()
        found |= new
        waiting += [inner for name in new for inner in functions[name]]
    return found


def _counted(nodes: Any, functions: dict[str, Any], known: dict[str, Counter[str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for node in nodes:
        counts[node.op] += 1
        for name in _called(node):
            if name not in known:
                known[name] = Counter()  # a function that calls itself counts once
                known[name] = _counted(functions.get(name, ()), functions, known)
            counts.update(known[name])
    return counts


def _called(node: Any) -> Iterator[str]:
    for name in sorted(node.attr):
        value = node.attr[name]
        if value.HasField("func"):
            yield value.func.name
        elif value.HasField("list"):
            yield from (function.name for function in value.list.func)
