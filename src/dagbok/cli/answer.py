"""`dagbok answer`: one question of an execution gets its answer, by an engine or, where there is none, here.

Without an answer on the command line it asks, if somebody is there. What does not fit is told and changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from dagbok.app import Vault, make_registry
from dagbok.cli import interview, keyboard, questions, render, replies, summary
from dagbok.cli.asking import Wish, deliver
from dagbok.cli.beside import owner_words
from dagbok.cli.questions import Question, Questions
from dagbok.cli.replies import Answer
from dagbok.cli.show import find
from dagbok.cli.stopping import Interrupted, run_until_stopped
from dagbok.cli.terminal import line, note, redact_with
from dagbok.cli.words import counted, shown_id
from dagbok.diary import Diary
from dagbok.domain import answers, values
from dagbok.domain.answers import Calls
from dagbok.domain.states import QuestionOutcome
from dagbok.domain.values import Json
from dagbok.errors import BadInput, Conflict, InvalidAnswer, NotFound
from dagbok.outside import find_owner, open_commands
from dagbok.service import calls_of
from dagbok.settings import Settings

#: Of an answer from a file or standard input.
_MAX_BYTES: Final = 8 * 2**20
_INVALID: Final = 2
#: The data of the command, and the question that it answers.
Judged = tuple[dict[str, Json], str]


class Given(NamedTuple):
    """What the command line says; all of it may be absent."""

    value: str | None
    input: str | None
    decision: str | None  # by --decision, --approve, --reject, or --edit
    edit: str | None
    result: str | None

    @property
    def nothing(self) -> bool:
        """Whether somebody is to be asked."""
        return all(part is None for part in self)


def decided(decision: str | None, *, approve: bool, reject: bool, edit: bool) -> str | None:
    """Return the decision that the flags name. Raises BadInput: they name several."""
    flags = {"approve": approve, "reject": reject, "edit": edit, decision: decision is not None}
    named = [word for word, is_given in flags.items() if is_given]
    if len(named) > 1:
        raise BadInput(f"There are several decisions: {', '.join(line(str(word), 60) for word in named)}. Give one.")
    return named[0] if named else None


@dataclass(frozen=True, slots=True)
class _Judge:
    """Judges answers as the engine would."""

    diary: Diary
    execution_id: str
    secrets: Vault
    calls: Callable[[], Calls]  # made when params are edited: it takes a while to load all tools

    def __call__(self, question: Question, answer: Answer) -> Judged:
        """Return what the command says. Raises InvalidAnswer, Conflict, NotFound."""
        answer = self.secrets.redactor.value(answer)
        return self.diary.judge_answer(self.execution_id, question.task_id, answer, self.calls, number=question.number)


def answer(which: str, task_id: str | None, given: Given, *, by: str | None, json: bool, settings: Settings) -> int:
    """Answer a question of an execution and say what comes of it; return the exit code.

    Raises:
        NotFound, BadInput: There is no such execution or question; it is not clear which is meant, or what is said.
        Conflict: It does not wait, or has its answer already.
    """
    secrets = Vault.load(settings)
    redact_with(secrets.redact)
    with open_commands(settings, secrets, command="dagbok answer") as (diary, commander), ExitStack() as stack:
        execution_id = find(diary, which, to="answer")
        waiting = questions.load(diary, execution_id)
        question = _meant(diary, execution_id, waiting, task_id, settings)
        judge = _Judge(diary, execution_id, secrets, partial(_calls, stack, settings, secrets))
        try:
            judged = _asked(judge, question, settings) if given.nothing else judge(question, _answer(question, given))
        except InvalidAnswer as exc:
            return _refused(question, exc)
        except Interrupted as exc:
            return exc.exit_code
        if judged is None:
            note("Nothing was answered.")
            return 0
        applied = deliver(commander, settings, Wish(execution_id, "answer", by, *judged))
        if applied:
            _must_count(diary, execution_id, question)
            _tell(diary, execution_id, question, settings)
        if json:
            render.print_json(summary.load(diary, execution_id).json)
    return 0


def _meant(diary: Diary, execution_id: str, waiting: Questions, task_id: str | None, settings: Settings) -> Question:
    """Return the question that is meant: that of a sub-task, or the only one."""
    if task_id is None and len(waiting) == 1:
        return waiting[0]
    named = ", ".join(shown_id(question.task_id) for question in waiting[:10]) + (", ..." if len(waiting) > 10 else "")
    if task_id is None and len(waiting) > 1:
        example = summary.command(settings, "answer", execution_id, waiting[0].task_id)
        raise BadInput(
            f"{counted(len(waiting), 'question')} wait for an answer: {named}. Say which, as in `{example}`."
        )
    if task_id is None:
        status = diary.execution(execution_id)["status"]
        raise Conflict(f"Execution {execution_id} asks nothing now; it is {status}.")
    try:
        return questions.of_row(diary.open_question(execution_id, task_id))
    except NotFound as exc:
        more = ""
        if len(waiting) == 1 and task_id is not None:  # perhaps the answer was meant
            meant = summary.command(settings, "answer", execution_id, waiting[0].task_id, task_id)
            more = f" To answer that one so: `{meant}`"
        raise NotFound(f"{exc.message} What waits for an answer: {named or 'nothing'}.{more}") from exc


def _answer(question: Question, given: Given) -> Answer:
    """Return the answer of a command line, with what it has in files or on standard input."""
    if given.value is not None and given.input is not None:
        raise BadInput("There are two answers, one behind the sub-task and one with --input; give one.")
    text = given.input if given.value is None else given.value
    params: Json = None
    if given.edit is not None:
        source = given.edit if given.edit.lstrip()[:1] == "{" else _read(given.edit)
        params = values.parse(source)
        if not isinstance(params, dict):
            raise BadInput("--edit is no JSON object: it holds all params, by name.")
    if text == "-":
        text = _read("-").rstrip("\n")
    return replies.given(question, text, decided=given.decision, params=params, result=given.result)


def _read(source: str) -> str:
    """Return the text of a file, or of standard input (`-`). Raises BadInput."""
    name = "standard input" if source == "-" else line(source, 200)
    try:
        if source == "-":
            data = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise BadInput(f"{name} has more than {_MAX_BYTES:,} bytes.")
        return data.decode()
    except OSError as exc:
        raise BadInput(f"{name} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise BadInput(f"{name} is no text in UTF-8.") from exc


def _asked(judge: _Judge, question: Question, settings: Settings) -> Judged | None:
    """Ask somebody who is there; None: they leave it. Raises BadInput where nobody is."""
    if not keyboard.is_there():
        command = summary.command(settings, "answer", judge.execution_id, question.task_id)
        raise BadInput(f"There is no answer; put it behind `{command}`: {questions.choices(question.kind)}.")
    judged: list[Judged] = []

    async def give(answer: Answer) -> None:
        judged.append(judge(question, answer))

    async def params() -> Json:
        return questions.params(judge.diary, judge.execution_id, question)

    run_until_stopped(interview.ask(question, give, params), lambda: note("Nothing was answered."))
    return judged[-1] if judged else None


def _refused(question: Question, refusal: InvalidAnswer) -> int:
    """Say everything that is wrong with an answer; return the exit code."""
    note(f"dagbok: the answer to {shown_id(question.task_id)} does not fit, and nothing was changed:")
    for words in replies.problems(refusal):
        note(f"  {words}")
    if question.schema is not None and question.kind not in answers.DECISIONS:
        note(f"Its schema: {line(values.encode(dict(question.schema)), 1_000)}")
    return _INVALID


def _calls(stack: ExitStack, settings: Settings, secrets: Vault) -> Calls:
    registry = make_registry(settings)
    stack.callback(registry.close)
    return calls_of(registry, settings, secrets.redactor)


def _must_count(diary: Diary, execution_id: str, asked: Question) -> None:
    """Return if it was this answer that closed the question. Raises Conflict: the execution has ended before."""
    row = diary.reader.question(execution_id, asked.task_id)
    if row is None or row["number"] != asked.number or row["outcome"] == QuestionOutcome.ANSWERED:
        return
    if row["closed_at"] is not None:
        raise answers.too_late(
            execution_id, asked.task_id, outcome=row["outcome"], by=row["answered_by"], at_ms=row["closed_at"]
        )


def _tell(diary: Diary, execution_id: str, question: Question, settings: Settings) -> None:
    """Say what becomes of the execution now."""
    row, left = diary.execution(execution_id), questions.load(diary, execution_id)
    command = partial(summary.command, settings)
    note(f"{shown_id(question.task_id)} of {execution_id} has its answer.")
    if left:
        more = counted(len(left), "more question waits", "more questions wait")
        note(f"{more} for one: `{command('answer', execution_id)}`")
    owner = find_owner(settings)
    if row["completed_at"] is not None:
        note(f"The execution is {row['status']}: `{command('show', execution_id)}`")
    elif row["paused_at"] is not None:
        note(f"The execution is paused; `{command('resume', execution_id)}` goes on.")
    elif owner is not None:
        note(f"{owner_words(owner)} goes on with it.")
    else:
        note(f"Nobody runs it now; `{command('resume', execution_id)}` goes on.")
