"""Reading what was written: lists, one execution with its steps, its graph; and whether a command has a point.

It needs no engine: any process that reaches the database may read. Rows come as mappings of column names, JSON columns
as text; `dagbok.wire` turns them into what clients see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from dagbok.domain import answers, approval, diagram, lost, overriding, values
from dagbok.domain.answers import Calls
from dagbok.domain.diagram import Diagram
from dagbok.domain.ids import SYNTHESIS, ExecutionId, TaskId
from dagbok.domain.inbox import InboxPage, Place, Wanted
from dagbok.domain.listing import MAX_LIMIT, begins_behind
from dagbok.domain.lost import LOST
from dagbok.domain.records import Page
from dagbok.domain.rerun import RETRYABLE
from dagbok.domain.states import EXECUTION_ENDED, ExecutionStatus, StepStatus
from dagbok.domain.validate import Problem
from dagbok.domain.values import Json, JsonText, pointer_to
from dagbok.errors import BadInput, Conflict, NotFound
from dagbok.store.queries import Reader

Row = Mapping[str, Any]

#: Results up to this size come with the list of sub-steps; larger ones by their own request.
INLINE_RESULT_BYTES = 64 * 1024
#: The latest tries of each sub-step that come with it, as far as they did not end well; all by their own request.
SHOWN_ATTEMPTS = 20


class Diary:
    """Reads what was written. Synchronous and safe on any thread."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def list_executions(
        self, *, limit: int = 50, offset: int = 0, status: str | None = None, cursor: str | None = None
    ) -> Page:
        """Return a page of executions, newest first.

        Args:
            limit: At most so many, from 1 to 100.
            offset: Pass over so many, for a page near the newest: what is made meanwhile moves the pages, and many
                take their time.
            status: Only those in this state.
            cursor: The `next_cursor` of the page before, for all pages (see `dagbok.domain.listing`).

        Raises:
            BadInput: A limit outside 1-100, a negative offset, or one beside a cursor, an unknown status, or a cursor
                that is none of this list; with a pointer.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise BadInput(f"`limit` is {limit}; it is a number from 1 to {MAX_LIMIT}.", pointer="/limit")
        if not 0 <= offset <= values.MAX_INTEGER:
            raise BadInput(f"`offset` is {offset}; it is 0 or more.", pointer="/offset")
        if status is not None and status not in set(ExecutionStatus):
            words = ", ".join(ExecutionStatus)
            raise BadInput(f"`status` is {status!r}; it is one of {words}.", pointer="/status")
        after = begins_behind(cursor, offset=offset, status=status)
        return self.reader.list_executions(limit=limit, offset=offset, status=status, after=after)

    def each_execution(self, status: ExecutionStatus) -> Iterator[Row]:
        """Go through all executions in a state, newest first, as `list_executions` shows them; nothing is counted."""
        return self.reader.each_execution(status)

    def beginning_with(self, start: str, *, limit: int) -> Sequence[str]:
        """Return at most `limit` of the executions whose id begins so, the newest first."""
        return self.reader.beginning_with(start, limit=limit)

    def execution(self, execution_id: str) -> Row:
        """Return an execution. Raises NotFound."""
        row = self.reader.get_execution(ExecutionId(execution_id))
        if row is None:
            raise _no_execution(execution_id)
        return row

    def sub_steps(self, execution_id: str, *, inline_bytes: int = INLINE_RESULT_BYTES) -> Sequence[Row]:
        """Return the sub-steps in task-id order, the synthesis last; larger results as None. Raises NotFound."""
        rows = self.reader.sub_steps(ExecutionId(execution_id), inline_bytes=inline_bytes)
        if not rows:
            self.execution(execution_id)  # a plan has sub-tasks: no rows means no execution
        return rows

    def version(self, execution_id: str) -> tuple[int, int]:
        """Return what tells one state of an execution from another, without reading it whole. Raises NotFound."""
        version = self.reader.version(execution_id)
        if version is None:
            raise _no_execution(execution_id)
        return version

    def details(self, execution_id: str, *, whole: bool = False) -> tuple[Row, Sequence[Row]]:
        """Return an execution and its sub-steps as they were at one moment; larger results as None unless `whole`.

        Each sub-step comes with its latest `attempts` that did not end well, and with its open `question`.

        Raises:
            NotFound: No such execution.
        """
        with self.reader.snapshot() as reader:
            found = reader.whole(execution_id, last=SHOWN_ATTEMPTS)
            if found is None:
                raise _no_execution(execution_id)
            row, steps, attempts = found
            tried: dict[str, list[Row]] = {}
            for attempt in attempts:
                tried.setdefault(attempt["task_id"], []).append(attempt)
            asked: dict[str, Row] = {}
            if any(step["status"] == StepStatus.WAITING for step in steps):
                asked = {row["task_id"]: row for row in reader.open_questions(execution_id, limit=None)}
            steps = [
                {**step, "attempts": tried.get(step["task_id"], []), "question": asked.get(step["task_id"])}
                for step in steps
            ]
            return row, [Diary(reader)._with_result(step) for step in steps] if whole else steps

    def _with_result(self, step: Row) -> Row:
        if step["result"] is not None or step["result_bytes"] is None:
            return step
        return {**step, "result": self.reader.result(step["execution_id"], step["task_id"])}

    def graph(self, execution_id: str) -> tuple[Row, Diagram]:
        """Return an execution (id, title, status, last_event_seq, updated_at) and its graph; no result is read.

        Raises:
            NotFound: No such execution.
            BadInput: It has more dependencies than a graph shows.
        """
        found = self.reader.outline(execution_id)
        if found is None:
            raise _no_execution(execution_id)
        return found[0], diagram.of(*found)

    def result(self, execution_id: str, task_id: str) -> JsonText:
        """Return the whole result of a sub-step as JSON text. Raises NotFound, also while there is none."""
        text = self.reader.result(ExecutionId(execution_id), TaskId(task_id))
        if text is not None:
            return text
        status = self._step_status(execution_id, task_id)
        raise NotFound(
            f"Sub-step {task_id!r} of {execution_id} has no result; it is {status}.", execution_id=execution_id
        )

    def attempts(self, execution_id: str, task_id: str) -> Sequence[Row]:
        """Return all tries of a sub-step that did not end well, in order. Raises NotFound."""
        self._step_status(execution_id, task_id)
        return self.reader.attempts(execution_id, task_id)

    def _step_status(self, execution_id: str, task_id: str) -> str:
        status = self.reader.step_status(execution_id, task_id)
        if status is None:
            self.execution(execution_id)
            raise NotFound(f"Execution {execution_id} has no sub-step {task_id!r}.", execution_id=execution_id)
        return status

    def events(self, execution_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[Row]:
        """Return events after the one numbered `after`, in order. Raises NotFound."""
        rows = self.reader.events(ExecutionId(execution_id), after_seq=after, limit=limit)
        if not rows:
            self.execution(execution_id)
        return rows

    def judge(self, execution_id: str, kind: str) -> bool:
        """Return whether a command (`cancel`, `pause`, `resume`, `retry`) still has something to say to an execution.

        Raises:
            NotFound, Conflict: No such execution; it has ended, which the command cannot change, or, for `retry`, has
                not, or has completed.
        """
        status = self.execution(execution_id)["status"]
        if kind == "retry":
            if status not in RETRYABLE:
                can = "what failed, is partial or was cancelled can be retried"
                raise Conflict(f"Execution {execution_id} is {status}; {can}.", execution_id=execution_id)
            return True
        if kind == "cancel" and status == ExecutionStatus.CANCELLED:
            return False
        if status in EXECUTION_ENDED:
            message = f"Execution {execution_id} is {status} already; nothing is left to {kind}."
            raise Conflict(message, execution_id=execution_id)
        return True  # also where it seems to be so already: an earlier command may be on its way

    def check_lost(self, execution_id: str, named: Sequence[str]) -> None:
        """Return if each of these sub-tasks can run again. Raises NotFound, BadInput (with a pointer)."""
        if not named:
            return
        chosen = frozenset(named)
        rows = {row["task_id"]: row for row in self.sub_steps(execution_id, inline_bytes=0)}
        if chosen == {SYNTHESIS} and all(row["status"] != StepStatus.COMPLETED for row in rows.values()):
            raise BadInput("Nothing has completed that the synthesis could put together.", pointer="/steps/0")
        for position, task_id in enumerate(named):
            row = rows.get(task_id)
            if row is None or row["status"] not in LOST:
                state = "not in it" if row is None else f"{row['status']}; only what failed or was cancelled runs again"
                raise BadInput(f"The sub-task {task_id!r} is {state}.", pointer=f"/steps/{position}")
            for parent in values.decode(row["dependencies"]):
                if parent not in chosen and rows[parent]["status"] in LOST:
                    why = f"depends on {parent!r}, which is {rows[parent]['status']}; name it as well"
                    raise BadInput(f"The sub-task {task_id!r} {why}.", pointer=f"/steps/{position}")

    def overridable(self, execution_id: str, named: Iterable[str], steps: Sequence[str] | None) -> dict[str, Json]:
        """Return the plan of an execution with the overrides that stand, if each of `named` would run again.

        Args:
            execution_id: The execution; it has ended.
            named: The sub-tasks that are to be overridden.
            steps: Those that a retry names; None: it is of all.

        Raises:
            NotFound, BadInput: There is none; a sub-task does not run again. Which are in it is judged elsewhere.
        """
        with self.reader.snapshot() as reader:
            text = reader.plan(execution_id)
            rows = {row["task_id"]: row for row in Diary(reader).sub_steps(execution_id, inline_bytes=0)}
        if text is None:
            raise _no_execution(execution_id)
        again = lost.again(rows, steps)
        kept = [task_id for task_id in named if task_id in rows and task_id not in again]
        if kept:
            raise overriding.refused(
                [
                    Problem(
                        pointer_to(task_id),
                        "not_again",
                        f"Sub-task {task_id!r} is {rows[task_id]['status']} and does not run again; fork the execution "
                        "to change what has completed.",
                    )
                    for task_id in kept
                ]
            )
        standing = {id: values.decode(row["override"]) for id, row in rows.items() if row["override"] is not None}
        return overriding.write(values.decode(text), standing)

    def judge_answer(
        self,
        execution_id: str,
        task_id: str,
        answer: Mapping[str, Json],
        calls: Callable[[], Calls],
        *,
        number: int | None = None,
    ) -> tuple[dict[str, Json], str]:
        """Return what the command `answer` says for an answer to the open question of a sub-step, and its `wait`.

        Args:
            execution_id: The execution.
            task_id: The sub-task that waits.
            answer: See `answers.read`.
            calls: Returns what there is to know of the tools here; called where params are edited.
            number: Of the question that was seen; None: whichever is open.

        Raises:
            NotFound, Conflict: No such sub-step; it does not wait, or has its answer already, or its time is over.
            InvalidAnswer: The answer does not fit; with every problem.
        """
        question = self.open_question(execution_id, task_id, number)
        said = answers.read(question["kind"], question["answer_schema"], answer)
        if question["kind"] == approval.KIND and isinstance(said, dict) and said["decision"] == "edit":
            plan, standing = self.reader.called(execution_id, task_id)
            said = answers.edited(said, values.decode(plan), task_id, values.decode(standing or "{}"), calls())
        data = {"taskId": task_id, "question": question["number"], "answer": said}
        return data, f"{task_id}#{question['number']}"

    def open_question(self, execution_id: str, task_id: str, number: int | None = None) -> Row:
        """Return the question that a sub-step waits with; with `number` that one, and no later one.

        Raises:
            NotFound, Conflict: No such sub-step; it does not wait: the message says how its last question was closed.
        """
        question = self.reader.question(execution_id, task_id, number)
        if question is not None and question["closed_at"] is None:
            return question
        status = self._step_status(execution_id, task_id)
        if question is None and number is not None:
            message = f"Sub-step {task_id!r} of {execution_id} has not asked question {number} yet; it is {status}."
            raise Conflict(message, execution_id=execution_id, task_id=task_id)
        if question is None:
            raise Conflict(f"Sub-step {task_id!r} of {execution_id} does not wait for an answer; it is {status}.")
        raise answers.too_late(
            execution_id, task_id, outcome=question["outcome"], by=question["answered_by"], at_ms=question["closed_at"],
            status=status,
        )  # fmt: skip

    def human_inputs(
        self,
        *,
        status: str = "open",
        kind: str | None = None,
        assignee: str | None = None,
        execution_id: str | None = None,
        due_before: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> InboxPage:
        """Return a page of the questions to people: the open ones, the oldest first, or `all`, the newest first.

        Args:
            status: `open` or `all`.
            kind: Only those of a kind: `human`, `approval`, `did_it_happen`.
            assignee: Only those for somebody.
            execution_id: Only those of an execution; there may be none.
            due_before: Only those whose time is over before then.
            limit: At most so many, from 1 to 100.
            cursor: The `next_cursor` of the page before. What is asked or answered in between moves nothing.

        Raises:
            BadInput: A filter cannot be used, or the cursor is none; with a pointer.
        """
        wanted = Wanted.read(
            status=status, kind=kind, assignee=assignee, execution_id=execution_id, due_before=due_before,
            limit=limit, cursor=cursor,
        )  # fmt: skip
        rows = self.reader.human_inputs(wanted)
        shown = rows[:limit]
        more = Place(shown[-1]["asked_at"], shown[-1]["id"]).cursor(status) if len(rows) > limit else None
        return InboxPage(shown, limit, more)

    def unfinished(self) -> Sequence[Row]:
        """Return what has not ended: id, status, title, created_at."""
        return self.reader.unfinished()


def _no_execution(execution_id: str) -> NotFound:
    return NotFound(f"There is no execution {execution_id!r}.", execution_id=execution_id)
