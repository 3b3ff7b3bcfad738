from __future__ import annotations

from dagbok.engine.slots import Slots
from engine.fakes import FakeTool, _nothing


def test_executions_take_turns_and_the_longest_path_of_each_goes_first() -> None:
    slots: Slots[str] = Slots(10)
    for position, remaining in ((0, 1), (1, 3), (2, 2)):
        slots.push("a", position, remaining)
    slots.push("b", 0, 1)
    assert [slots.pop() for _ in range(5)] == [("a", 1), ("b", 0), ("a", 2), ("a", 0), None]


def test_nothing_is_handed_out_while_no_slot_is_free() -> None:
    slots: Slots[str] = Slots(1)
    tool = FakeTool("t", _nothing)
    slots.push("a", 0, 1)
    slots.take(tool)
    assert slots.pop() is None
    slots.release(tool)
    assert slots.pop() == ("a", 0)


def test_room_promised_to_an_execution_that_is_gone_goes_to_the_next() -> None:
    """A parked step must never stand before a tool that nobody uses."""
    slots: Slots[str] = Slots(10)
    tool = FakeTool("t", _nothing, max_concurrency=1)
    slots.take(tool)
    slots.line_up(tool, "a", 0, 1)
    slots.line_up(tool, "b", 0, 1)
    slots.release(tool)  # a's step is promised the room, and waits in the common queue
    slots.discard("a")
    assert slots.pop() == ("b", 0)
