"""A process that dies at a chosen write: alone on a fake journal, and under a real engine on real databases."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from dagbok import Dagbok
from dagbok.domain.ids import Epoch, ExecutionId
from dagbok.domain.records import Changes
from dagbok.domain.states import ExecutionStatus, StepStatus
from dagbok.engine.ports import Journal
from dagbok.errors import Fenced, Misconfigured, NotFound, OutcomeUnknown
from dagbok.testing import CrashingJournal, FakeClock, Hang, ScriptedTool
from engine.fakes import Bench, FakeJournal, FakeTool
from engine.fakes import plan as engine_plan
from engine.fakes import task as engine_task
from store.diary import header
from testing.documents import plan, task

When = Literal["before", "after"]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Let an engine that is left wait an hour for its commits and its bodies; so it must have nothing to wait for."""
    monkeypatch.setattr("dagbok.engine.scheduler.CLOSE_COMMITS_S", 3600)
    return 3600


def _changes(seq: int) -> Changes:
    return Changes(ExecutionId("dag-exec_1"), Epoch(1), seq, seq + 1, header())


async def _settled(*futures: asyncio.Future[Any]) -> list[object]:
    """Return what became of each: None, the class of its error, or `...` while it is open."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [... if not future.done() else type(future.exception()) for future in futures]


# -- alone -----------------------------------------------------------------------------------------------------------


def test_before_the_fatal_write_dies_and_everything_after_it_at_once() -> None:
    async def main() -> None:
        journal = FakeJournal()
        crash = CrashingJournal(journal, at=2)
        first = crash.append(_changes(1))
        assert await _settled(first) == [type(None)]
        assert not crash.crashed
        second, third = crash.append(_changes(2)), crash.append(_changes(3))
        assert second.done()
        assert third.done()
        assert await _settled(second, third) == [OutcomeUnknown, OutcomeUnknown]
        assert [changes.seq_before for changes in journal.appended] == [1]
        assert (crash.crashed, crash.writes) == (True, 2)
        await crash.until_crashed()

    asyncio.run(main())


def test_after_the_fatal_write_is_durable_and_nobody_hears_of_it() -> None:
    async def main() -> None:
        journal = FakeJournal(held=True)
        crash = CrashingJournal(journal, at=2, when="after")
        first, second = crash.append(_changes(1)), crash.append(_changes(2))
        third = crash.append(_changes(3))  # while the fatal one is under way: it dies with the process
        waiting = asyncio.ensure_future(crash.until_crashed())
        assert await _settled(first, second, third) == [..., ..., ...]
        assert not crash.crashed
        journal.waiting.pop().set_result(None)  # the second is durable, the first not yet
        assert await _settled(first, second, third) == [OutcomeUnknown, OutcomeUnknown, OutcomeUnknown]
        await waiting
        journal.release()
        assert await _settled(first) == [OutcomeUnknown], "what was written all the same is not heard of either"
        assert [changes.seq_before for changes in journal.appended] == [1, 2]

    asyncio.run(main())


def test_until_the_crash_every_outcome_is_passed_on() -> None:
    async def main() -> None:
        went_wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: went_wrong.append(context))
        journal = FakeJournal(held=True)
        crash = CrashingJournal(journal, at=None)
        port: Journal = crash  # for whoever builds a scheduler by hand
        fenced, cancelled, left = port.append(_changes(1)), port.append(_changes(2)), port.append(_changes(3))
        journal.waiting[0].set_exception(Fenced())
        journal.waiting[1].cancel()
        left.cancel()  # its caller went away
        await _settled()
        journal.waiting[2].set_result(None)
        await _settled()
        assert isinstance(fenced.exception(), Fenced)
        assert cancelled.cancelled()
        assert crash.writes == 3
        assert went_wrong == []

    asyncio.run(main())


def test_what_is_no_write_is_passed_on_and_what_writes_without_a_number_dies_too() -> None:
    class Real(FakeJournal):
        available = True
        told: list[str]

        def claim(self, id: str) -> asyncio.Future[str]:
            self.told = [*getattr(self, "told", []), id]
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            future.set_result(f"claimed {id}")
            return future

        def count(self) -> int:
            return 42

    async def main() -> None:
        real = Real()
        crash: Any = CrashingJournal(real, at=1)
        assert (crash.available, crash.count(), await crash.claim("a")) == (True, 42, "claimed a")
        assert crash.writes == 0
        await _settled(crash.append(_changes(1)))
        with pytest.raises(OutcomeUnknown):
            await crash.claim("b")
        assert (crash.available, real.told) == (True, ["a"])

    asyncio.run(main())


def test_it_is_a_journal_to_the_engine_and_the_engine_gives_up_what_it_has() -> None:
    async def main() -> None:
        journal = FakeJournal()
        crash, clock = CrashingJournal(at=2), FakeClock()
        bench = Bench(FakeTool("work", _work), journal=crash.around(journal), clock=clock)
        made = bench.add(engine_plan(engine_task("a"), engine_task("b", "a"), engine_task("c", "b")))
        with pytest.raises(OutcomeUnknown, match="died before write 2"):
            await clock.run(bench.scheduler.wait(made.id))
        assert [row.task_id for changes in journal.appended for row in changes.steps] == ["a"]

    async def _work(_: Any) -> int:
        return 1

    asyncio.run(main())


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(Misconfigured, match="counted from 1"):
        CrashingJournal(at=0)
    with pytest.raises(Misconfigured, match="'before' or 'after'"):
        CrashingJournal(at=1, when="during")  # type: ignore[arg-type]
    crash = CrashingJournal(at=1)
    crash.around(FakeJournal())
    with pytest.raises(Misconfigured, match="each engine needs its own"):
        crash.around(FakeJournal())


# -- under a real engine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_second_engine_goes_on_from_what_was_written(database_url: str, at: int, when: When, patient: float) -> None:
    """Write 1 is the submission; each of the three steps is one more."""

    async def main() -> None:
        ids = ["1", "2", "3"]
        work = ScriptedTool("work", {id: [f"r{id}", f"r{id}"] for id in ids}, effect="idempotent")
        crash = CrashingJournal(at=at, when=when)
        async with (
            asyncio.timeout(60),
            Dagbok(database_url, tools=[work], journal=crash.around, close_grace_s=patient) as dagbok,
        ):
            try:
                await dagbok.submit(plan(task("1", "work"), task("2", "work", "1"), task("3", "work", "2")))
            except OutcomeUnknown:
                assert at == 1
            await crash.until_crashed()
        assert crash.writes == at

        async with Dagbok(database_url, tools=[work]) as dagbok:
            written = await dagbok.list()
            assert len(written) == (0 if (at, when) == (1, "before") else 1)
            if not written:
                return
            execution = await dagbok.wait(written[0].id)
        assert execution.status is ExecutionStatus.COMPLETED
        durable = at - 2 if when == "before" else at - 1
        again = [] if when == "after" or at == 1 else [ids[at - 2]]
        calls = [call.task_id for call in work.calls]
        assert calls == [*ids[:durable], *again, *ids[durable:]], "only what was not written runs again"

    asyncio.run(main())


def test_counting_the_writes_of_a_plan_changes_nothing(database_url: str) -> None:
    async def main() -> None:
        work = ScriptedTool("work", ["a", "b"], effect="once")
        count = CrashingJournal(at=None)
        async with Dagbok(database_url, tools=[work], journal=count.around) as dagbok:
            execution = await dagbok.run(plan(task("1", "work"), task("2", "work", "1")))
        assert execution.status is ExecutionStatus.COMPLETED
        # The submission, and of each `once` step its start and its end; the first end and the second start may share.
        assert count.writes in (4, 5)
        assert not count.crashed

    asyncio.run(main())


def test_a_once_step_whose_end_was_not_written_is_asked_about(database_url: str) -> None:
    async def main() -> None:
        send = ScriptedTool("send", ["sent"], effect="once")
        crash = CrashingJournal(at=3)  # 1 the submission, 2 the start, 3 the end
        async with Dagbok(database_url, tools=[send], journal=crash.around) as dagbok:
            submitted = await dagbok.submit(plan(task("1", "send")))
            with pytest.raises(OutcomeUnknown):
                await dagbok.wait(submitted.execution_id)
        async with Dagbok(database_url, tools=[send]) as dagbok:
            execution = await dagbok.wait(submitted.execution_id)
        assert execution["1"].status is StepStatus.WAITING
        assert execution["1"].reason == "outcome_unknown"
        assert len(send.calls) == 1

    asyncio.run(main())


def test_the_bodies_of_other_executions_keep_nobody_from_leaving(database_url: str, patient: float) -> None:
    async def main() -> None:
        stuck = ScriptedTool("stuck", [Hang()], effect="once")
        quick = ScriptedTool("quick", ["q"], effect="pure")
        crash = CrashingJournal(at=4)  # two submissions and the start of the first
        async with (
            asyncio.timeout(60),
            Dagbok(database_url, tools=[stuck, quick], journal=crash.around, close_grace_s=0) as dagbok,
        ):
            first = await dagbok.submit(plan(task("1", "stuck")))
            await stuck.called()
            await dagbok.submit(plan(task("1", "quick")))
            await crash.until_crashed()
        async with Dagbok(database_url, tools=[quick, stuck]) as dagbok:
            execution = await dagbok.wait(first.execution_id)
        assert execution["1"].reason == "outcome_unknown"

    asyncio.run(main())


def test_commands_after_the_crash_fail_and_change_nothing(database_url: str) -> None:
    async def main() -> None:
        stuck = ScriptedTool("stuck", [Hang(), "done"], effect="pure")
        quick = ScriptedTool("quick", ["q"], effect="pure")
        crash = CrashingJournal(at=3)
        async with Dagbok(database_url, tools=[stuck, quick], journal=crash.around, close_grace_s=0) as dagbok:
            first = await dagbok.submit(plan(task("1", "stuck")))
            await stuck.called()
            second = dagbok.submit(plan(task("1", "quick")))
            with pytest.raises(OutcomeUnknown):
                await dagbok.wait((await second).execution_id)
            with pytest.raises(OutcomeUnknown):
                await dagbok.cancel(first.execution_id)
            with pytest.raises(NotFound):
                await dagbok.get("dag-exec_none")
        async with Dagbok(database_url, tools=[stuck, quick]) as dagbok:
            execution = await dagbok.wait(first.execution_id)
        assert execution.status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_what_is_written_for_an_execution_that_nobody_runs_is_counted_too(database_url: str) -> None:
    async def main() -> None:
        stuck = ScriptedTool("stuck", [Hang()], effect="pure")
        async with Dagbok(database_url, tools=[stuck], close_grace_s=0) as dagbok:
            submitted = await dagbok.submit(plan(task("1", "stuck")))
            await stuck.called()
        crash = CrashingJournal(at=1)
        async with Dagbok(database_url, tools=[stuck], journal=crash.around, recover=False) as dagbok:
            await dagbok.service.cancel(submitted.execution_id)  # durable, and so accepted
            assert crash.crashed
            assert (await dagbok.get(submitted.execution_id)).status is not ExecutionStatus.CANCELLED
        async with Dagbok(database_url, tools=[stuck], recover=False) as dagbok:
            # The command itself was durable: whoever comes next applies it.
            await dagbok.cancel(submitted.execution_id)
            assert (await dagbok.get(submitted.execution_id)).status is ExecutionStatus.CANCELLED

    asyncio.run(main())


def test_a_clock_and_a_crash_go_together_in_either_order(database_url: str) -> None:
    async def main() -> None:
        for turn in (1, 2):
            clock, crash = FakeClock(), CrashingJournal(at=2, when="after")
            work = ScriptedTool("work", ["a"], effect="pure")

            def first_the_clock(journal: Any, clock: FakeClock = clock, crash: CrashingJournal = crash) -> Any:
                return clock.watch(crash.around(journal))

            def first_the_crash(journal: Any, clock: FakeClock = clock, crash: CrashingJournal = crash) -> Any:
                return crash.around(clock.watch(journal))

            around = first_the_clock if turn == 1 else first_the_crash
            waits = plan(task("1", "work"), task("2", "wait", "1", params={"seconds": 3600}))
            async with Dagbok(database_url, tools=[work], clock=clock, journal=around) as dagbok:
                submitted = await dagbok.submit(waits)
                await clock.run(crash.until_crashed())
            clock = clock.next_process()
            async with Dagbok(database_url, tools=[work], clock=clock, journal=clock.watch) as dagbok:
                execution = await clock.run(dagbok.wait(submitted.execution_id))
            assert execution.status is ExecutionStatus.COMPLETED
            assert (len(work.calls), clock.elapsed_s) == (1, 3600)

    asyncio.run(main())


def test_it_can_die_at_a_moment_of_ones_choice(database_url: str) -> None:
    async def main() -> None:
        crash, work = CrashingJournal(), ScriptedTool("work", ["a"], effect="pure")
        async with Dagbok(database_url, tools=[work], journal=crash.around) as dagbok:
            done = await dagbok.run(plan(task("1", "work")))
            crash.crash()
            assert crash.crashed
            with pytest.raises(OutcomeUnknown, match=r"The process died \(CrashingJournal\)"):
                await dagbok.submit(plan(task("1", "work")))
        async with Dagbok(database_url, tools=[work]) as dagbok:
            assert [each.id for each in await dagbok.list()] == [done.id]

    asyncio.run(main())
