"""What somebody has typed or given as flags, as an answer: a value of the plan's question, or a decision.

Words are taken as they are meant: JSON where it is JSON and fits, text where a text is what is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dagbok.cli.questions import Question
from dagbok.cli.terminal import line
from dagbok.domain import answers, values
from dagbok.domain.values import Json
from dagbok.errors import BadInput, InvalidAnswer, MalformedJson, NotJson

Answer = dict[str, Json]

_YES: Final = ("y", "yes", "true")
_NO: Final = ("n", "no", "false")


def json_or_text(text: str) -> Json:
    """Return the JSON value that `text` is; else the text itself. Raises NotJson for what no database holds."""
    try:
        return values.parse(text)
    except MalformedJson:
        return text
    except NotJson:
        if text.lstrip()[:1] in ("{", "["):  # it was meant as JSON, and as text it would be taken
            raise
        return text  # NaN, say, or more digits than a number has


def value(question: Question, text: str) -> Answer:
    """Return the answer to a question of the plan: of JSON and text what fits its schema, JSON first.

    What fits neither way is returned as what it most likely is, for others to say what is wrong with it.
    """
    read = json_or_text(text)
    if question.schema is None or isinstance(read, str) or _fits(question, read) or not _fits(question, text):
        return {"input": read}
    return {"input": text}  # "42", where a string is asked for


def _fits(question: Question, given: Json) -> bool:
    schema = values.encode(question.schema) if question.schema is not None else None
    try:
        answers.read(question.kind, schema, {"input": given})
    except BadInput:
        return False
    return True


def options(question: Question) -> Sequence[Json] | None:
    """Return the values among which the schema of a question lets choose; None: any number of them."""
    schema = question.schema or {}
    if schema.get("type") == "boolean" and "enum" not in schema:
        return (True, False)
    listed = schema.get("enum")
    return listed if isinstance(listed, list) and 0 < len(listed) <= 50 else None


def typed(question: Question, text: str) -> Answer:
    """Return the answer that somebody typed in front of a question.

    Of an approval `edit` comes without its params, of a doubt `succeeded` without its result.

    Raises:
        BadInput: It is no decision.
    """
    text = text.strip()
    if question.kind in answers.DECISIONS:
        return {"decision": decision(question.kind, text)}
    choices = options(question)
    if choices == (True, False) and text.lower() in (*_YES, *_NO):
        return {"input": text.lower() in _YES}
    numbers = choices is not None and any(isinstance(choice, int | float) for choice in choices)
    if choices is not None and not numbers and text.isascii() and text.isdigit() and 1 <= int(text) <= len(choices):
        return {"input": choices[int(text) - 1]}
    return value(question, text)


def decision(kind: str, word: str) -> str:
    """Return the decision that a word means, or its first letter. Raises BadInput."""
    known = answers.DECISIONS[kind]
    lowered = word.strip().lower()
    found = [name for name in known if lowered in (name, name[0])]
    if not found:
        raise BadInput(f"{line(word, 60)!r} is no decision; it is one of {', '.join(known)}.", pointer="/decision")
    return found[0]


def given(
    question: Question, text: str | None, *, decided: str | None = None, params: Json = None, result: str | None = None
) -> Answer:
    """Return the answer that a command line gives.

    Args:
        question: To this question.
        text: The answer, as text or JSON; a decision in words, where it asks for one.
        decided: A decision that a flag names.
        params: With `edit`.
        result: With `succeeded`, as text or JSON.

    Raises:
        BadInput: It answers twice, or not at all.
    """
    if text is not None and decided is not None:
        raise BadInput(f"There are two answers, {line(text, 60)!r} and {line(decided, 60)!r}; give one.")
    answer: Answer = {}
    if text is not None and question.kind in answers.DECISIONS:
        decided = decision(question.kind, text)
    elif text is not None:
        answer = value(question, text)
    if decided is not None:
        answer["decision"] = decided
    if params is not None:
        answer["params"] = params
    if result is not None:
        answer["result"] = json_or_text(result)
    return answer


def problems(error: BadInput) -> list[str]:
    """Return what is wrong with an answer, a line each, with its place in it."""
    found: Sequence[Any] = error.fields.get("problems", ()) if isinstance(error, InvalidAnswer) else ()
    lines = []
    for problem in found:
        place = problem.pointer.removeprefix("/input")  # which nobody has typed
        lines.append(line(f"{place}: {problem.message}" if place else problem.message, 500))
    return lines or [line(error.message, 500)]


def offered(kind: str) -> str:
    """Return the decisions of a kind of question with their letters: "[a]pprove / [e]dit / [r]eject"."""
    return " / ".join(f"[{word[0]}]{word[1:]}" for word in answers.DECISIONS[kind])
