"""What an execution asks of people, and how to answer: over HTTP, at the server that runs or at one to be started."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import quote

from dagbok.cli.beside import owner_words
from dagbok.cli.terminal import clean, line
from dagbok.cli.words import counted, shown_error, shown_id
from dagbok.diary import Diary
from dagbok.domain import doubt, values
from dagbok.outside import find_owner
from dagbok.settings import Settings

#: The answer by the kind of question. None is JSON before somebody has chosen, so that nothing is answered by accident.
_BODIES: Final = {doubt.KIND: '{"decision": "retry" | "succeeded" | "fail"}'}
_BODY: Final = '{"input": ...}'
_ADVICE: Final = {doubt.KIND: "retry runs it again, succeeded takes it as done, fail as failed"}
_INPUT_ADVICE: Final = "the answer, as JSON, in place of ..."
#: Of more questions the rest is counted: a command each would hide all else.
_COMMANDS: Final = 3


class Question(NamedTuple):
    """A question that waits for an answer."""

    task_id: str
    prompt: str
    kind: str
    late: str | None  # what the attempt in doubt has brought since, as text


Questions = Sequence[Question]


def load(diary: Diary, execution_id: str) -> Questions:
    """Return the questions that an execution waits for, oldest first."""
    rows = diary.reader.open_questions(execution_id)
    return [Question(row["task_id"], row["prompt"], row["kind"], _late(row["shown"])) for row in rows]


def _late(shown: str | None) -> str | None:
    late = (values.decode(shown) if shown else {}).get("late")
    if late is None:
        return None
    return values.as_text(late["result"]) if "result" in late else shown_error(late.get("errorCode"), late.get("error"))


def asks(questions: Questions, indent: str = "  ") -> list[str]:
    """Return a line for each question, and below it what is known by now of an attempt in doubt."""
    lines: list[str] = []
    for question in questions:
        lines.append(f"{indent}{shown_id(question.task_id)} asks: {line(question.prompt, 500)}")
        if question.late is not None:
            lines.append(f"{indent}  It has ended since, with: {line(question.late, 300)}")
    return lines


def how_to_answer(execution_id: str, questions: Questions, settings: Settings, serve: str) -> list[str]:
    """Return lines that say how to answer; `serve` is the command that starts a server here."""
    if not questions:
        return []
    owner = find_owner(settings)
    url = owner.get("url") if owner else None
    lines = [f"To answer: `{serve}`, then"]
    if url:
        lines = [f"To answer at the server at {clean(url)}:"]
    elif owner:
        lines = [f"To answer: when {owner_words(owner)} has ended, `{serve}`, then"]
    at = f"{url or _address(settings)}/api/v1/dag-executions/{execution_id}/sub-steps"
    for question in questions[:_COMMANDS]:
        words = ["curl", "-s", f"{at}/{quote(question.task_id, safe='')}/input", "-H", "content-type: application/json"]
        lines.append(f"  {clean(shlex.join([*words, '-d', _BODIES.get(question.kind, _BODY)]))}")
    if more := len(questions) - _COMMANDS:
        lines += [f"  and likewise for {counted(more, 'more question')}"] if more > 0 else []
    kinds = dict.fromkeys(question.kind for question in questions)
    return [*lines, *(f"  ({_ADVICE.get(kind, _INPUT_ADVICE)})" for kind in kinds)]


def told(executions: Mapping[str, Questions], settings: Settings, serve: str) -> list[str]:
    """Return how to answer the first of `executions`, by id, that asks: with the others it is the same."""
    found = next(((id, asked) for id, asked in executions.items() if asked), None)
    return how_to_answer(found[0], found[1][:1], settings, serve) if found else []


def _address(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104  # an address to call
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
