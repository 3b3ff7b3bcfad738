"""Pausing, resuming, deadlines, and leaving the memory: the parts of an execution's life in which nothing begins."""

from __future__ import annotations

import pytest

from dagbok.domain import values
from dagbok.domain.states import ExecutionStatus, Reason
from dagbok.errors import Conflict
from domain.executions import Played, plan_of


def test_a_paused_execution_lets_what_runs_end_and_begins_nothing() -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}))
    played.begin("a")
    played.pause(by="ann")
    assert (played.status, played.header.paused_at) == ("running", played.now_ms)
    played.complete("a", values.encode(1))
    assert played.status == "waiting"
    assert "b" not in played.ready
    played.resume(by="bob")
    assert played.status == "running"
    assert played.header.paused_at is None
    assert played.ready[-1] == "b"
    played.run("b")
    assert played.status == "completed"
    assert played.words() == [
        "execution.created", "execution.started", "execution.paused", "execution.waiting", "execution.resumed",
        "execution.completed",
    ]  # fmt: skip
    data = {event.type: event.data for event in played.store.events}
    assert data["execution.paused"] == '{"by":"ann"}'
    assert data["execution.waiting"] == '{"reason":"paused"}'
    assert data["execution.resumed"] == '{"by":"bob"}'


def test_pausing_and_resuming_twice_changes_nothing_the_second_time() -> None:
    played = Played(plan_of({"a": []}))
    played.resume()
    assert played.store.seq == 1
    played.pause()
    seq = played.store.seq
    played.pause()
    assert played.store.seq == seq
    played.resume()
    seq = played.store.seq
    played.resume()
    assert played.store.seq == seq


def test_one_that_was_paused_before_anything_began_is_pending_again() -> None:
    played = Played(plan_of({"a": []}))
    played.pause()
    assert played.status == "waiting"
    played.resume()
    assert played.status == "pending"
    played.run("a")
    assert played.status == "completed"


def test_what_stood_in_the_queue_when_it_was_paused_is_ready_again_once_it_goes_on() -> None:
    played = Played(plan_of({"a": [], "b": []}))
    played.pause()
    for position in (0, 1):
        played.execution.hold(position)
    played.ready.clear()
    played.commit()
    assert played.ready == []
    played.resume()
    assert sorted(played.ready) == ["a", "b"]


def test_a_pause_outlives_a_crash() -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}))
    played.begin("a")
    played.pause()
    played.crash()
    assert played.ready == []
    assert played.status == "waiting"
    played.resume()
    assert played.ready == ["a"]


def test_a_question_can_be_answered_while_it_is_paused() -> None:
    played = Played(plan_of({"q": [], "b": ["q"]}, q={"action_type": "human"}))
    played.ask("q", "which?")
    played.pause()
    assert played.status == "waiting"
    played.answer("q", "this")
    assert played.status == "waiting"
    assert "b" not in played.ready
    played.resume()
    assert played.ready[-1] == "b"


def test_the_synthesis_waits_for_the_end_of_a_pause() -> None:
    played = Played(plan_of({"a": []}, synthesis=True))
    played.begin("a")
    played.pause()
    played.complete("a", values.encode(1))
    assert played.status == "waiting"
    played.resume()
    assert played.ready[-1] == "__SYNTHESIS__"


def test_a_pause_ends_with_the_execution() -> None:
    played = Played(plan_of({"a": []}))
    played.begin("a")
    played.pause()
    played.complete("a", values.encode(1))
    assert (played.status, played.header.paused_at) == ("completed", None)
    for act in (played.pause, played.resume, played.cancel):
        with pytest.raises(Conflict, match="completed already"):
            act()
    assert not played.execution.changed


def test_a_timer_ends_though_the_execution_is_paused() -> None:
    played = Played(plan_of({"w": [], "b": ["w"]}))
    played.begin("w", due_at=played.now_ms + 5_000)
    played.pause()
    assert played.status == "running"
    played.ring(5)
    assert played.row("w").status == "completed"
    assert played.status == "waiting"


# -- deadlines ------------------------------------------------------------------------------------------------------


def test_at_its_deadline_what_is_open_is_cancelled_and_what_completed_counts() -> None:
    played = Played(plan_of({"a": [], "b": [], "c": ["b"]}, synthesis=True))
    played.execution.header.deadline_at = played.now_ms + 10_000
    played.run("a")
    played.begin("b")
    assert played.execution.next_due_at == 11_000
    assert played.ring(0) == []
    assert played.status == "running"
    played.ring(10)
    assert played.status == "partial"
    assert played.header.error_code == Reason.DEADLINE
    assert "1 of 3" in str(played.header.error)
    assert played.states() == {
        "a": "completed", "b": "cancelled:deadline", "c": "cancelled:deadline", "__SYNTHESIS__": "cancelled:deadline"
    }  # fmt: skip
    assert played.execution.next_due_at is None


def test_nothing_begins_after_a_deadline_that_passed_while_nobody_was_there() -> None:
    played = Played(plan_of({"a": []}))
    played.execution.header.deadline_at = played.now_ms + 10
    played.commit()
    played.now_ms += 3_600_000
    played.crash()
    assert played.ring() == []
    assert played.status == "failed"


def test_a_deadline_ends_a_pause_and_a_question() -> None:
    played = Played(plan_of({"q": [], "b": []}, q={"action_type": "human"}))
    played.execution.header.deadline_at = 5_000
    played.ask("q", "which?")
    played.pause()
    played.ring(5)
    assert played.status == "failed"
    assert all(question.closed_at is not None for question in played.store.questions.values())


# -- leaving the memory ---------------------------------------------------------------------------------------------


def test_one_that_waits_for_a_person_is_never_due() -> None:
    played = Played(plan_of({"q": []}, q={"action_type": "human"}))
    played.ask("q", "which?")
    assert played.execution.release(played.now_ms).header.wake_at is None


def test_one_that_waits_for_a_time_is_due_then_or_at_its_deadline() -> None:
    played = Played(plan_of({"w": [], "q": []}, q={"action_type": "human"}))
    played.ask("q", "which?")
    played.begin("w", due_at=90_000)
    assert played.execution.release(played.now_ms).header.wake_at == 90_000
    played.execution.header.deadline_at = 50_000
    changes = played.execution.release(played.now_ms)
    assert (changes.header.wake_at, changes.release, changes.seq_before) == (50_000, True, changes.seq_after)


@pytest.mark.parametrize(("came_back_at", "active_ms"), [(90_000, 89_000), (50_000, 49_000), (200_000, 89_000)])
def test_waiting_for_a_time_is_active_time_though_nobody_owns_it(came_back_at: int, active_ms: int) -> None:
    """As it is in memory. When nobody was there to see that it is due, that was no waiting any more."""
    played = Played(plan_of({"w": []}))
    played.now_ms = 990
    played.begin("w", due_at=90_000)
    played.store.apply(played.execution.release(played.now_ms))
    played.execution = played.store.restored(parked=(1_000, 90_000))
    played.now_ms = came_back_at
    played.execution.take_over(came_back_at)
    assert played.execution.take_changes(came_back_at).header.duration_ms == active_ms


def test_one_that_has_work_left_is_due_at_once() -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}))
    played.begin("a")
    assert played.execution.release(played.now_ms).header.wake_at == played.now_ms
    played.complete("a", values.encode(1))
    assert played.store.restored().release(played.now_ms).header.wake_at == played.now_ms


def test_a_paused_one_is_not_due_for_what_it_may_not_begin() -> None:
    played = Played(plan_of({"a": []}))
    played.pause()
    assert played.status == ExecutionStatus.WAITING
    assert played.execution.release(played.now_ms).header.wake_at is None


def test_one_that_ended_is_due_no_more() -> None:
    played = Played(plan_of({"a": []}))
    played.execution.header.deadline_at = 50_000
    played.run("a")
    assert played.header.wake_at is None
