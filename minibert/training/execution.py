"""What TensorFlow really executes: the graph that it has made of a traced function by the first call.

Between tracing and execution TensorFlow inlines functions and rewrites the graph, and what comes out may
have sums of its own. It hands these graphs out while they are made, so looking at them costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tensorflow.python.eager import context

from minibert.errors import RepeatabilityError
from minibert.training.repeatability import Hazard, hazards, refuse

Result = TypeVar("Result")
_ARGUMENTS, _RESULTS = ("_Arg", "_DeviceArg"), ("_Retval", "_DeviceRetval")


@dataclass(frozen=True)
class ExecutedGraph:
    """A graph as it is executed.

    Attributes:
        definition: A ``GraphDef``.
        is_whole: Whether it is all of it, not one device's part.
    """

    definition: Any
    is_whole: bool

    def is_of(self, function: Any) -> bool:
        """Whether it takes and gives as many tensors as a concrete function, variables included.

        TensorFlow leaves out what nothing in the function reads.
        """
        kinds = [node.op for node in self.definition.node]
        taken, given = (sum(kind in wanted for kind in kinds) for wanted in (_ARGUMENTS, _RESULTS))
        fewest = sum(bool(tensor.consumers()) for tensor in function.inputs)
        return self.is_whole and fewest <= taken <= len(function.inputs) and given == len(function.outputs)


@contextmanager
def executed_graphs() -> Iterator[list[ExecutedGraph]]:
    """Gives a list that, after the block, has every graph that was first executed in it."""
    graphs: list[ExecutedGraph] = []
    context.enable_graph_collection()
    try:
        yield graphs
        for function in context.export_run_metadata().function_graphs:
            parts = list(function.partition_graphs)
            graphs.append(ExecutedGraph(function.post_optimization_graph, True))
            graphs += [ExecutedGraph(part, len(parts) == 1) for part in parts]
    finally:
        context.disable_graph_collection()


def require_repeatable_execution(call: Callable[[], Result], what: str) -> Result:
    """Calls, and refuses what came if a graph that was first executed by it has a hazard.

    Args:
        call: What to execute.
        what: Its name, for the message.

    Raises:
        RepeatabilityError: A graph has a hazard, or calls a function that cannot be looked at.
    """
    with executed_graphs() as graphs:
        result = call()
    refuse(hazards_of(graphs), f"{what}, as TensorFlow executes it")
    return result


def hazards_of(graphs: list[ExecutedGraph]) -> list[Hazard]:
    """The hazards of several graphs, each one once."""
    found = (hazard for graph in graphs for hazard in hazards(graph.definition, is_whole=graph.is_whole))
    return list(dict.fromkeys(found))


class CheckedFunction:
    """A traced function whose first call is refused if the graph that it executes has a hazard.

    Args:
        function: A concrete function that has not been called yet.
        what: Its name, for the message.
    """

    def __init__(self, function: Any, what: str = "training step") -> None:
        self._function, self._what = function, what
        self._hazards: list[Hazard] | None = None

    @property
    def graph(self) -> Any:
        """The traced graph."""
        return self._function.graph

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function.

        Raises:
            RepeatabilityError: The executed graph has a hazard, or TensorFlow did not show it.
        """
        if self._hazards is None:
            return self._first_call(*arguments)
        refuse(self._hazards, f"{self._what}, as TensorFlow executes it")
        return self._function(*arguments)

    def _first_call(self, *arguments: Any) -> Any:
        with executed_graphs() as graphs:
            result = self._function(*arguments)
        if not any(graph.is_of(self._function) for graph in graphs):  # operations around it have graphs of their own
            raise RepeatabilityError(
                f"{self._what}: the graph that TensorFlow executes is required, but it gave none of the function's"
            )
        self._hazards = hazards_of(graphs)
        refuse(self._hazards, f"{self._what}, as TensorFlow executes it")
        return result
