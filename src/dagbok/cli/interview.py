"""One question, asked on a terminal until it has an answer that fits, or is left for later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from dagbok.cli import keyboard, replies
from dagbok.cli.questions import Question, in_full, pretty
from dagbok.cli.replies import Answer
from dagbok.cli.terminal import clean_json, line, note
from dagbok.domain import values
from dagbok.domain.values import Json
from dagbok.errors import BadInput

#: Gives an answer. Raises BadInput: it does not fit, and somebody may try again.
Give = Callable[[Answer], Awaitable[None]]
#: Returns all params of the call that waits for an approval.
Params = Callable[[], Awaitable[Json]]

_LATER: Final = "Enter for later"


async def ask(question: Question, give: Give, params: Params) -> bool:
    """Show a question and give what somebody answers; return whether they have.

    Raises:
        DagbokError: The answer cannot be given; it is not what is wrong with it.
    """
    note()
    for words in in_full(question):
        note(words)
    for words in _choices(question):
        note(words)
    draft: str | None = None  # the params as somebody has left them, right or wrong
    while True:
        try:
            text = await keyboard.read_line(f"{_prompt(question)}: ")
            if not text.strip():
                return False
            answer = replies.typed(question, text)
            if answer.get("decision") == "edit":
                draft, answer["params"] = await _edited(draft or pretty(await params()))
            if answer.get("decision") == "succeeded":
                answer |= await _brought(question)
            await give(answer)
        except _Unedited as exc:
            draft = exc.draft
            note(f"  {line(exc.message, 500)}")
        except BadInput as exc:
            for words in replies.problems(exc):
                note(f"  {words}")
        else:
            return True


def _choices(question: Question) -> list[str]:
    if question.kind != "human" or question.schema is None:
        return []
    choices = replies.options(question)
    if choices is None:
        return [f"  As this schema has it: {line(clean_json(values.encode(dict(question.schema))), 1_000)}"]
    if choices == (True, False):
        return []
    return [f"  {number:>2}  {line(values.as_text(choice), 200)}" for number, choice in enumerate(choices, 1)]


def _prompt(question: Question) -> str:
    if question.kind != "human":
        return f"  {replies.offered(question.kind)} ({_LATER})"
    choices = replies.options(question)
    if choices == (True, False):
        return f"  [y]es / [n]o ({_LATER})"
    if choices is not None:
        return f"  One of these ({_LATER})"
    return f"  Your answer ({_LATER})"


class _Unedited(BadInput):
    """The params are not edited, and what is left of the attempt is `draft`."""


async def _edited(text: str) -> tuple[str, Json]:
    """Let somebody change params, and return their text and what it says. Raises _Unedited."""
    command = keyboard.editor()
    if command is None and not keyboard.takes(text):
        told = "They are too long for a line: set $EDITOR, or give `dagbok answer` a file with --edit."
        raise _Unedited(told, draft=text)
    if command is None:
        note(f"  Now: {line(clean_json(values.encode(values.parse(text))), 2_000)}")
        changed = await keyboard.read_line("  All params, as JSON: ")
    else:
        changed = await keyboard.edit(command, text)
    if not changed.strip() or changed.strip() == text.strip():
        raise _Unedited("Nothing was changed.", draft=text)
    try:
        return changed, values.parse(changed)
    except BadInput as exc:
        raise _Unedited(exc.message, draft=changed) from exc


async def _brought(question: Question) -> Answer:
    """Return the result of what has happened after all, if somebody knows one."""
    none = "Enter for what came late" if question.late is not None else "Enter for none"
    text = (await keyboard.read_line(f"  Its result, as text or JSON ({none}): ")).strip()
    return {"result": replies.json_or_text(text)} if text else {}
