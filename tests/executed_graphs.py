"""What TensorFlow really runs: the graphs after its own rewriting, which may add sums of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from tensorflow.python.eager import context

_FLOATS = (1, 2, 14, 19)  # float32, float64, bfloat16, float16


def racing_nodes(call: Callable[[], Any]) -> tuple[int, list[str]]:
    """Runs ``call`` and looks at every graph that it executed, before and after rewriting.

    Returns:
        How many sums of floating-point tensors there are, by name, and those of three inputs or more.
    """
    exported, export = [], context.export_run_metadata

    def kept_export() -> Any:
        """A checked step takes the graphs itself: here they are seen as well."""
        exported.append(export())
        return exported[-1]

    with mock.patch.object(context, "export_run_metadata", kept_export):
        context.enable_graph_collection()
        try:
            call()
            kept_export()
        finally:
            context.disable_graph_collection()
    graphs = []
    for metadata in exported:
        graphs += metadata.partition_graphs
        for function in metadata.function_graphs:
            graphs += [function.pre_optimization_graph, function.post_optimization_graph, *function.partition_graphs]
    assert graphs, "nothing was traced or executed as a graph"
    sums = [node for graph in graphs for node in _nodes(graph) if node.op in ("AddN", "AccumulateNV2")]
    inputs = {node.name: node.attr["N"].i for node in sums if node.attr["T"].type in _FLOATS}
    return len(inputs), [f"{name} of {count}" for name, count in inputs.items() if count > 2]


def _nodes(graph: Any) -> list[Any]:
    """A graph's nodes and those of its functions; what XLA compiles has an order already."""
    functions = [f for f in graph.library.function if not f.attr["_XlaMustCompile"].b]
    return [*graph.node, *(node for function in functions for node in function.node_def)]
