"""Which units of the inputs say most about a question: BM25 for relevance, MMR against saying the same thing twice.

Sources: Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; Carbonell & Goldstein,
"The use of MMR, diversity-based reranking", 1998. Deterministic: equal scores keep the order of the text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dagbok.llm.sentences import Kind, Unit

_K1, _B = 1.2, 0.75  # the usual constants of BM25
# What a unit is worth: to the question by itself, for the heading it stands under, to its text, and as an opening.
_RELEVANCE, _HEADING, _CENTRALITY, _LEAD = 1.0, 0.3, 0.3, 0.25
_DIVERSITY = 0.6  # how much a unit loses for what has been said
_FLOOR = 0.3  # of the best score; what is worth less is not said only because there is room
_CANDIDATES = 200  # the best so many are compared with each other

_WORD = re.compile(r"[^\W_]+")
_LINK = re.compile(r"!?\[[^\[\]]{0,300}\]\([^()\s]{0,300}\)|https?://\S{1,300}")
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts that put no space between words
_STOP = frozenset(
    _WORD.findall(
        "a about after all also an and any are as at be because been before being between both but by can could did "
        "do does each few for from further had has have he her here him his how i if in into is it its itself just me "
        "more most my no nor not now of off on once only or other our out over own same she should so some such than "
        "that the their them then there these they this those through to too under until up use using very was we were "
        "what when where which while who whom why will with would you your task result results given find list write "
        "summarise summarize"
    )
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A unit, the source it comes from (a number), and its place there (0 is the first)."""

    unit: Unit
    source: int
    place: int


def words(text: str) -> list[str]:
    """Return the words that count, without case and plural; dense scripts as pairs of characters."""
    found: list[str] = []
    for word in _WORD.findall(text.casefold()):
        if _DENSE.search(word):
            found += (word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif word not in _STOP:
            found.append(word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word)
    return found


def select(
    candidates: Sequence[Candidate], question: str, *, fits: Callable[[Candidate], bool], most: int
) -> list[Candidate]:
    """Return at most `most` candidates, best first.

    Args:
        candidates: What may be chosen.
        question: What they should be about.
        fits: Asked about each one in the order of choice; what it refuses is passed over.
        most: The bound on the answer.
    """
    bags = [Counter(words(candidate.unit.text)) for candidate in candidates]
    scores = _scores(candidates, bags, question)
    floor = _FLOOR * max(scores, default=0.0)
    order = [index for index in range(len(candidates)) if scores[index] >= floor]
    order = sorted(order, key=lambda index: -scores[index])[:_CANDIDATES]
    overlap = dict.fromkeys(order, 0.0)
    chosen: list[Candidate] = []
    while order and len(chosen) < most:
        best = max(order, key=lambda index: scores[index] - _DIVERSITY * overlap[index])
        order.remove(best)
        if overlap[best] > 0.85 or not fits(candidates[best]):  # said already, near enough word for word
            continue
        chosen.append(candidates[best])
        for index in order:
            overlap[index] = max(overlap[index], _similarity(bags[best], bags[index]))
    return chosen


def _scores(candidates: Sequence[Candidate], bags: list[Counter[str]], question: str) -> list[float]:
    count = len(bags)
    lengths = [bag.total() for bag in bags]
    average = max(1.0, sum(lengths) / max(1, count))
    spread = Counter(word for bag in bags for word in bag)
    rarity = {word: math.log(1 + (count - n + 0.5) / (n + 0.5)) for word, n in spread.items()}
    wanted = dict.fromkeys(words(question)[:400])
    asked = [word for word in wanted if word in rarity]
    relevance = [
        sum(
            rarity[w] * bag[w] * (_K1 + 1) / (bag[w] + _K1 * (1 - _B + _B * length / average))
            for w in asked
            if w in bag
        )
        for bag, length in zip(bags, lengths, strict=True)
    ]
    headings = {candidate.unit.heading: 0.0 for candidate in candidates}
    for heading in headings:
        said = set(words(heading))
        headings[heading] = len(said & wanted.keys()) / len(said) if said else 0.0
    # Words that many units share are what the text is about, whatever was asked.
    central = [sum(spread[w] for w in bag) / math.sqrt(len(bag)) / (1 + len(bag)) if bag else 0.0 for bag in bags]
    top_relevance, top_central = max(relevance, default=0) or 1.0, max(central, default=0) or 1.0
    return [
        (
            _RELEVANCE * rel / top_relevance
            + _HEADING * headings[candidate.unit.heading]
            + _CENTRALITY * mid / top_central
            + _LEAD / (1 + candidate.place)
        )
        * _worth(candidate.unit, length)
        for candidate, rel, mid, length in zip(candidates, relevance, central, lengths, strict=True)
    ]


def _worth(unit: Unit, length: int) -> float:
    """Return what the form of a unit says of it: menus and crumbs of pages are short and end in no mark."""
    if unit.kind is Kind.BLOCK:
        return 0.7
    if len(_LINK.sub("", unit.text)) * 4 < len(unit.text):  # nothing but links
        return 0.1
    if unit.kind is Kind.PROSE and length < 5:
        return 0.8 if unit.text.endswith((".", "!", "?", "\u3002")) else 0.2
    return 1.0


def _similarity(one: Counter[str], other: Counter[str]) -> float:
    shared = len(one.keys() & other.keys())
    return shared / max(1, min(len(one), len(other)))
