"""What the built-in offline model answers: it ranks and quotes its inputs, and writes nothing of its own.

It is there so that a plan with model calls runs anywhere, with no key and no network, and always the same. It reads the
prompt that `dagbok.llm.prompts` builds; any other text it takes as one input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from dagbok.domain.plan import HUMAN, INFERENCE
from dagbok.llm.prompts import Section, read
from dagbok.llm.ranking import Candidate, select
from dagbok.llm.sentences import LONGEST, Kind, Unit, split

PROVIDER: Final = "offline"
MODEL: Final = "extractive"
NAME: Final = f"{PROVIDER}:{MODEL}"

#: How to get a real model. Shown where a person decides: in a synthesis, and by the command line.
HINT: Final = (
    "For answers that are written and not only quoted, set a model, such as DAGBOK_MODEL=openai:gpt-5 or --model "
    "openai:gpt-5, with its key in the environment (OPENAI_API_KEY) and its package installed "
    "(pip install 'dagbok[openai]')."
)
NOTICE: Final = (
    f"*Quoted from the results by the built-in offline model `{NAME}`, which writes nothing of its own. {HINT}*"
)

READ_CHARS: Final = 200_000  #: of all inputs together; what is beyond is not considered
_PROMPT_CHARS = 4_000_000  # of a prompt; none that Dagbok builds with sensible settings is as long
_UNITS = 4_000  # of all inputs together

INFERENCE_CHARS: Final = 1_800  #: of an answer to a model call
SYNTHESIS_CHARS: Final = 9_000  #: of a synthesis, save the headings
_INFERENCE_UNITS, _SYNTHESIS_UNITS = 8, 40
_SOURCES = 40  # quoted in a synthesis
_MISSING = 50  # named in a synthesis
_ANSWERING = (INFERENCE, HUMAN)  # tools whose results are answers, and not material

_CREDIT = re.compile(r"\s*\[(?:task|input|instructions)\b[^\[\]\n]{0,200}\]$")  # of an earlier quotation


@dataclass(frozen=True, slots=True)
class _Source:
    name: str  # "task 3", "input `text`"
    title: str  # of its part in a briefing
    text: str
    tool: str = ""  # what made it, as far as it is known


class _Room:
    """Says yes as long as there is room for one more."""

    def __init__(self, left: int) -> None:
        self._left = left

    def __call__(self, candidate: Candidate) -> bool:
        if len(candidate.unit.text) > self._left:
            return False
        self._left -= len(candidate.unit.text)
        return True


def answer(prompt: str, *, limit_chars: int | None = None) -> str:
    """Return the answer to a prompt, as Markdown; never empty, and the same for the same prompt.

    Args:
        prompt: As `dagbok.llm.prompts` builds it, or any text.
        limit_chars: A tighter bound on what is quoted.
    """
    sections = read(prompt[:_PROMPT_CHARS]) or [Section("given", prompt[:READ_CHARS], {"name": "prompt"})]
    by_tag = {tag: [s for s in sections if s.tag == tag] for tag in {section.tag for section in sections}}
    question = " ".join(
        section.text[:4_000]
        for tag in ("task", "instructions", "synthesis_plan", "request", "expected_output", "params")
        for section in by_tag.get(tag, [])
    )
    sources = [_source(section) for tag in ("given", "result") for section in by_tag.get(tag, [])]
    if "task" in by_tag or "synthesis_plan" not in by_tag:
        return _quote(sources, by_tag, question, min(limit_chars or INFERENCE_CHARS, INFERENCE_CHARS))
    # What a model or a person answered says it better than what it was made of, which is only named.
    answers = [source for source in sources if source.tool in _ANSWERING]
    used = [source for source in sources if source.tool not in _ANSWERING] if answers else []
    return _briefing(answers or sources, used, by_tag, question, min(limit_chars or SYNTHESIS_CHARS, SYNTHESIS_CHARS))


def _source(section: Section) -> _Source:
    if section.tag == "given":
        name = f"input {section.attributes.get('name', '')}".strip()
        return _Source(name, name.capitalize(), section.text)
    task, part = section.attributes.get("task", "?"), section.attributes.get("part")
    described = section.attributes.get("description", "")
    name = f"task {task}" + (f", {part}" if part else "")
    title = f"Task {task}: {described}" if described else name[0].upper() + name[1:]
    return _Source(name, title, section.text, section.attributes.get("tool", ""))


def _quote(sources: list[_Source], by_tag: dict[str, list[Section]], question: str, limit: int) -> str:
    instructions = " ".join(section.text for section in by_tag.get("instructions", []))
    if not any(source.text.strip() for source in sources) and len(instructions) > LONGEST:
        # A prompt that brings its own text: what is to be worked on stands in it.
        sources = [_Source("instructions", "Instructions", instructions)]
    candidates = _candidates(sources)
    if not candidates:
        asked = (instructions or question).split()
        return f"There is nothing to quote: this task has no inputs. It asks: {' '.join(asked)[:LONGEST] or 'nothing'}"
    chosen = select(candidates, question, fits=_Room(limit), most=_INFERENCE_UNITS) or candidates[:1]
    lines: list[str] = []
    for candidate in _in_order(chosen):
        text = _CREDIT.sub("", candidate.unit.text)  # credited to the task that is quoted here
        credit = f"[{sources[candidate.source].name}]"
        block = candidate.unit.kind is Kind.BLOCK
        lines.append(f"\n{text}\n\n{credit}\n" if block else f"- {text} {credit}")
    return "\n".join(lines).strip()


def _briefing(
    sources: list[_Source], used: list[_Source], by_tag: dict[str, list[Section]], question: str, limit: int
) -> str:
    candidates = _candidates(sources)
    quoted = range(min(len(sources), _SOURCES))
    # Every source speaks: each gets its share of the room, and the best of all of them what is left.
    share = limit // max(1, len(quoted))
    each = max(2, min(12, _SYNTHESIS_UNITS // max(1, len(quoted))))
    parts: list[str] = []
    said: set[str] = set()  # one task quotes another; once is enough
    for number, group in groupby(candidates, key=lambda candidate: candidate.source):
        if number not in quoted:
            break
        own = [candidate for candidate in group if _bare(candidate.unit) not in said]
        chosen = _in_order(select(own, question, fits=_Room(share), most=each) or own[:1])
        said.update(_bare(candidate.unit) for candidate in chosen)
        written = _written(candidate.unit for candidate in chosen) or "Nothing that is not said above."
        parts.append(f"## {sources[number].title}\n\n{written}")
    if not parts:
        parts.append("No task left a result to quote.")
    if len(sources) > _SOURCES:
        parts.append(f"*{len(sources) - _SOURCES:,} more results are not quoted here.*")
    if used:
        parts.append("## Also used\n\n" + "\n".join(f"- {source.title}" for source in used[:_SOURCES]))
    if missing := by_tag.get("missing", []):
        parts.append("## Missing\n\n" + "\n".join(_lost(section) for section in missing[:_MISSING]))
        if len(missing) > _MISSING:
            parts.append(f"*And {len(missing) - _MISSING:,} more.*")
    return "\n\n".join((*parts, "---", NOTICE))


def _bare(unit: Unit) -> str:
    return _CREDIT.sub("", unit.text).casefold()


def _lost(section: Section) -> str:
    described = section.attributes.get("description", "")
    error = " ".join(section.text.split())
    error = error if len(error) <= 300 else error[:299] + "…"
    name = f"**Task {section.attributes.get('task', '?')}**{f' ({described})' if described else ''}"
    return f"- {name} {section.attributes.get('status', 'missing')}{f': {error}' if error else ''}"


def _written(units: Iterable[Unit]) -> str:
    lines: list[str] = []
    heading = ""
    for unit in units:
        if unit.heading != heading and unit.heading:
            lines.append(f"\n**{unit.heading}**\n" if lines else f"**{unit.heading}**\n")
        heading = unit.heading
        lines.append(f"\n{unit.text}\n" if unit.kind is Kind.BLOCK else f"- {unit.text}")
    return "\n".join(lines).strip()


def _candidates(sources: list[_Source]) -> list[Candidate]:
    share = READ_CHARS // max(1, len(sources))
    units_each = max(1, _UNITS // max(1, len(sources)))
    return [
        Candidate(unit, number, place)
        for number, source in enumerate(sources[:_UNITS])
        for place, unit in enumerate(split(source.text[:share], units_each))
        if _bare(unit)
    ]


def _in_order(chosen: list[Candidate]) -> list[Candidate]:
    return sorted(chosen, key=lambda candidate: (candidate.source, candidate.place))
