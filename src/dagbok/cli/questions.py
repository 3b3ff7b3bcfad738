"""What an execution asks of people: as the diary, the engine or a server tells it, as people read it, how to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from dagbok import wire
from dagbok.cli.terminal import clean, clean_json, line
from dagbok.cli.words import clock, counted, left, of_ms, shown_error, shown_id
from dagbok.diary import Diary
from dagbok.domain import answers, approval, values
from dagbok.domain.records import QuestionRow
from dagbok.domain.values import Json
from dagbok.errors import BadInput

#: Of more questions the rest is counted: a command each would hide all else.
_COMMANDS: Final = 3
_ASKED: Final = 10
#: Of a prompt, and of the params and what came late: nobody reads more before answering.
_PROMPT_CHARS: Final = 4_000
_SHOWN_LINES: Final = 60
_SHOWN_CHARS: Final = 1_000  # of a line
_CUT: Final = "… and "


class Question(NamedTuple):
    """A question that waits for an answer."""

    task_id: str
    number: int
    kind: str
    prompt: str
    schema: Mapping[str, Any] | None
    assignee: str | None
    due_ms: int | None
    shown: Mapping[str, Any] | None

    @property
    def key(self) -> tuple[str, int]:
        """What no other question of its execution has."""
        return self.task_id, self.number

    @property
    def late(self) -> str | None:
        """What an attempt in doubt has brought since, as text; None: nothing."""
        late = (self.shown or {}).get("late")
        if late is None:
            return None
        if "result" in late:
            return values.as_text(late["result"])
        return shown_error(late.get("errorCode"), late.get("error"))


Questions = Sequence[Question]


def load(diary: Diary, execution_id: str) -> Questions:
    """Return the questions that an execution waits for, oldest first."""
    return [of_row(row) for row in diary.reader.open_questions(execution_id)]


def of_row(row: Mapping[str, Any] | QuestionRow) -> Question:
    """Return a question of the diary, or of a commit."""
    columns = row._asdict() if isinstance(row, QuestionRow) else row
    schema, shown = (None if columns[name] is None else values.decode(columns[name]) for name in _JSON)
    return Question(
        columns["task_id"], columns["number"], columns["kind"], columns["prompt"], schema, columns["assignee"],
        columns["due_at"], shown,
    )  # fmt: skip


_JSON: Final = ("answer_schema", "shown")


def of_step(step: wire.SubStep) -> Question | None:
    """Return the question that a sub-step waits for, as a server tells it."""
    asked = step.question
    if asked is None:
        return None
    due_ms = None if asked.due_at is None else round(asked.due_at.timestamp() * 1000)
    return Question(
        step.task_id, asked.number, asked.kind, asked.prompt, asked.answer_schema, asked.assignee, due_ms, asked.shown
    )


def params(diary: Diary, execution_id: str, question: Question) -> Json:
    """Return all params of the call that waits for an approval; of large ones only the beginning is shown.

    Raises:
        BadInput: They are too large to be read here.
    """
    shown = (question.shown or {}).get("params")
    if isinstance(shown, dict):
        return shown
    for row in diary.sub_steps(execution_id, inline_bytes=0):
        if row["task_id"] == question.task_id and (row["input"] is not None or row["input_bytes"] is None):
            return values.decode(row["input"] or row["tool_or_prompt_params"])
    raise BadInput("They are too large to be edited here; `dagbok answer` takes them from a file, with --edit.")


# -- how they read ----------------------------------------------------------------------------------------------------


def asks(questions: Questions, indent: str = "  ") -> list[str]:
    """Return a line for each of the first questions, and below it what is known by now of an attempt in doubt."""
    lines: list[str] = []
    for question in questions[:_ASKED]:
        whom = f" {line(question.assignee, 60)}" if question.assignee else ""
        lines.append(f"{indent}{shown_id(question.task_id)} asks{whom}: {line(question.prompt, 500)}{_due(question)}")
        if question.kind == approval.KIND and question.shown is not None:
            called = f"{question.shown.get('tool')} {_compact(question.shown.get('params'))}"
            lines.append(f"{indent}  It would call: {line(called, 300)}")
        if question.late is not None:
            lines.append(f"{indent}  It has ended since, with: {line(question.late, 300)}")
    if (more := len(questions) - _ASKED) > 0:
        lines.append(f"{indent}and {counted(more, 'more question')}")
    return lines


def _due(question: Question) -> str:
    if question.due_ms is None:
        return ""
    due = of_ms(question.due_ms)
    return f" (until {clock(due)}, {left(due)})"


def in_full(question: Question) -> list[str]:
    """Return all there is to read before answering, a few lines; safe for a terminal."""
    shown = question.shown or {}
    whom = f" {line(question.assignee, 60)}" if question.assignee else ""
    lines = [f"{shown_id(question.task_id)} asks{whom}{_due(question)}:"]
    lines += [f"  {part}" for part in _cut(clean(question.prompt), _PROMPT_CHARS).splitlines()]
    if shown.get("description"):
        lines.append(f"  {line(str(shown['description']), 2_000)}")
    if "params" in shown:
        laid_out = _laid_out(shown["params"])
        lines += [f"  {part}" for part in laid_out]
        if question.kind == approval.KIND and (isinstance(shown["params"], str) or any(map(_is_cut, laid_out))):
            lines.append("  This is not all of it: [e]dit opens it whole in $EDITOR, and unchanged it changes nothing.")
    if question.late is not None:
        lines.append("  It has ended since, with:")
        lines += [f"  {part}" for part in _laid_out(shown["late"].get("result", question.late))]
    return lines


def _laid_out(value: Json) -> list[str]:
    """Return JSON as lines, and a text as it is."""
    text = clean(value) if isinstance(value, str) else clean_json(pretty(value))
    lines = text.splitlines()
    shown = [
        part if (more := len(part) - _SHOWN_CHARS) <= 0 else f"{part[:_SHOWN_CHARS]}{_CUT}{more:,} more characters"
        for part in lines[:_SHOWN_LINES]
    ]
    if (more := len(lines) - _SHOWN_LINES) > 0:
        shown.append(f"{_CUT}{more:,} more lines")
    return shown


def _is_cut(part: str) -> bool:
    return _CUT in part[-40:]


def pretty(value: Json) -> str:
    """Return JSON text for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _compact(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


# -- how to answer ----------------------------------------------------------------------------------------------------


def how_to_answer(execution_id: str, questions: Questions, command: Callable[..., str]) -> list[str]:
    """Return lines that say how to answer; `command` makes one of the words behind `dagbok`.

    The commands decide nothing: pasted as they are, they ask.
    """
    if not questions:
        return []
    lines = ["To answer:"]
    lines += [f"  {command('answer', execution_id, question.task_id)}" for question in questions[:_COMMANDS]]
    if (more := len(questions) - _COMMANDS) > 0:
        listed = command("inbox", "--execution", execution_id)
        lines.append(f"  and likewise for {counted(more, 'more question')}: `{listed}`")
    kinds = "; or ".join(map(choices, dict.fromkeys(question.kind for question in questions)))
    return [*lines, f"  (asks on a terminal; in a script the answer comes behind it: {kinds})"]


def choices(kind: str) -> str:
    """Return what may be answered to a kind of question, in words."""
    if kind not in answers.DECISIONS:
        return "text or JSON"
    *most, last = ("--edit PARAMS" if word == "edit" else word for word in answers.DECISIONS[kind])
    return f"{', '.join(most)} or {last}"


def told(executions: Mapping[str, Questions], command: Callable[..., str]) -> list[str]:
    """Return how to answer the first of `executions`, by id, that asks: with the others it is the same."""
    found = next(((id, asked) for id, asked in executions.items() if asked), None)
    return how_to_answer(found[0], found[1][:1], command) if found else []
