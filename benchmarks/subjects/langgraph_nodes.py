"""LangGraph with a checkpointer: a node per task, or its map-reduce (`Send`) where the graph is a fan.

Stored: a checkpoint of the state after each superstep, and the writes of each node. Durability `sync` waits for the
checkpoint before the next superstep; with `async`, its default, the next one runs meanwhile, so that a crash loses
what others call done: it is told beside the rest and is no durable peer. What flatters it: the graph is compiled
before the clock starts, a chain keeps only its last result, and nothing tells of a node that started.
"""

from __future__ import annotations

import asyncio
import operator
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from benchmarks import program
from benchmarks.program import Orders
from benchmarks.workloads import RESULT, Graph, Unit

Node = Callable[[Any], Coroutine[Any, Any, dict[str, Any]]]


class All(TypedDict):
    """The state that keeps every result."""

    results: Annotated[list[dict[str, Any]], operator.add]


class Last(TypedDict):
    """The state that keeps the last result, and counts."""

    result: dict[str, Any]
    count: Annotated[int, operator.add]


async def collect(_: Any) -> dict[str, Any]:
    """Add a result."""
    return {"results": [RESULT]}


async def replace(_: Any) -> dict[str, Any]:
    """Put a result in place of the one before."""
    return {"result": RESULT, "count": 1}


def work(seconds: float) -> Node:
    """Return a node that takes its time."""

    async def node(_: Any) -> dict[str, Any]:
        await asyncio.sleep(seconds)
        return {"results": [RESULT]}

    return node


def build(graph: Graph) -> StateGraph[Any]:
    """Return a graph in the form that suits LangGraph best."""
    levels = graph.levels()
    if all(len(level) == 1 for level in levels):
        return _static(graph, Last, lambda _: replace)
    if not graph.seconds and len(levels) == 3 and len(levels[1]) > 100:
        return _mapped(len(levels[1]))
    return _static(graph, All, lambda task: work(graph.seconds[task]) if graph.seconds else collect)


def _static(graph: Graph, state: Any, node: Callable[[str], Node]) -> StateGraph[Any]:
    builder = StateGraph(state)
    ends = set(graph.parents)
    for task, above in graph.parents.items():
        builder.add_node(task, node(task))
        ends.difference_update(above)
    for task, above in graph.parents.items():
        builder.add_edge(list(above) if len(above) > 1 else above[0] if above else START, task)
    for task in ends:
        builder.add_edge(task, END)
    return builder


def _mapped(width: int) -> StateGraph[Any]:
    builder = StateGraph(All)
    for name in ("first", "each", "last"):
        builder.add_node(name, collect)
    builder.add_edge(START, "first")
    builder.add_conditional_edges("first", lambda _: [Send("each", {"n": n}) for n in range(width)], ["each"])
    builder.add_edge("each", "last")
    builder.add_edge("last", END)
    return builder


class Nodes:
    """Runs units by one checkpointer."""

    def __init__(self, checkpointer: Any, durability: str) -> None:
        self._checkpointer = checkpointer
        self._durability = durability
        self._compiled: Any = None

    async def prepare(self, unit: Unit) -> None:
        """Compile the graph, which a program does once."""
        self._compiled = build(unit.graph).compile(checkpointer=self._checkpointer)

    async def run(self, unit: Unit) -> list[dict[str, Any]]:
        """Invoke all copies together, each as a thread of its own."""
        last = "result" in self._compiled.channels
        state: dict[str, Any] = {"result": {}, "count": 0} if last else {"results": []}

        def invoke() -> Any:
            config = {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": 100_000}
            return self._compiled.ainvoke(state, config, durability=self._durability)

        return await asyncio.gather(*(invoke() for _ in range(unit.copies)))

    async def check(self, unit: Unit, done: list[dict[str, Any]]) -> None:
        """Count the results."""
        program.expect(unit, sum(state["count"] if "count" in state else len(state["results"]) for state in done))


@asynccontextmanager
async def opened(orders: Orders) -> AsyncIterator[Nodes]:
    """Set up the checkpointer; the variant is the durability."""
    if orders.url.startswith("sqlite:///"):
        async with AsyncSqliteSaver.from_conn_string(orders.url.removeprefix("sqlite:///")) as saver:
            await saver.setup()
            yield Nodes(saver, orders.variant)
        return
    # One connection: a pool (of 4, of 20) took a tenth to a quarter more processor time and was not faster.
    async with AsyncPostgresSaver.from_conn_string(orders.url) as connected:
        await connected.setup()
        yield Nodes(connected, orders.variant)


if __name__ == "__main__":
    program.main(opened, "langgraph", "langgraph-checkpoint")
