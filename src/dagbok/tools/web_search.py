"""`web_search`: search engines of the web through `ddgs`, whose requests leave by a tunnel through `Egress`.

`ddgs` asks several engines, each in a thread, and says little about why it found nothing. So the statuses of their
answers are noted on the way (`_Noting`): engines that refuse automatic searches answer 202, 403 or 429, and that is
something else than a search without results.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from dagbok.errors import ToolError
from dagbok.tools.context import ToolContext
from dagbok.tools.decorator import tool
from dagbok.tools.lanes import ThreadLane
from dagbok.tools.tunnel import Tunnel

ENGINE_S: Final = 10  # for one request to one engine
SEARCH_S: Final = 45.0  # for all of them
BACKENDS: Final = "auto"  # as `ddgs` names engines
VERIFY: bool | str = True  #: certificates: the usual authorities, or a file of others (`ddgs.DDGS(verify=)`)

_MAX_CHARS: Final = 2000  # of a title or snippet
_REFUSALS: Final = frozenset((202, 403, 418, 429))
#: They know articles, not the web: that they answer says nothing about a web search.
_ENCYCLOPAEDIAS: Final = frozenset(("wikipedia", "grokipedia"))
_RANGES: Final = {"day": "d", "week": "w", "month": "m", "year": "y"}

#: Its threads end with their search: the tunnel cuts whatever they wait for.
_lane = ThreadLane(max_threads=16, name="dagbok-search")


@tool(effect="pure", aliases=("webSearch",), timeout_seconds=SEARCH_S + 15, max_concurrency=8)
async def web_search(
    context: ToolContext,
    query: Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")],
    max_results: Annotated[int, Field(ge=1, le=50)] = 10,
    region: Annotated[str, Field(pattern=r"^[a-z]{2}-[a-z]{2}$")] | None = None,
    time_range: Literal["day", "week", "month", "year"] | None = None,
) -> dict[str, Any]:
    """Search the web.

    Args:
        query: What to search for.
        max_results: At most 50; engines may give fewer.
        region: Country and language, such as `se-sv` or `us-en`.
        time_range: Only pages from the last day, week, month or year, where the engine can tell.

    Returns:
        {"query", "results": [{"title", "url", "snippet"}]}, the best first; no results is an empty list.
    """
    async with Tunnel(context.egress) as tunnel:
        search = _Search(tunnel.url)
        try:
            async with asyncio.timeout(SEARCH_S):
                results = await _lane.run(search.run, query, max_results, region or "us-en", time_range)
        except TimeoutError as exc:
            raise ToolError(f"The search engines did not answer within {SEARCH_S:g} s.", code="timeout") from exc
    if not results:
        search.check(tunnel.refusal)
    return {"query": query, "results": results}


class _Search:
    """One search, and what the engines answered."""

    def __init__(self, proxy: str) -> None:
        self._proxy = proxy
        self._answers: list[tuple[str, int]] = []  # engine, status
        self._error: Exception | None = None

    def run(self, query: str, max_results: int, region: str, time_range: str | None) -> list[dict[str, str]]:
        """Return what was found; called in a thread."""
        from ddgs.ddgs import DDGS
        from ddgs.exceptions import DDGSException

        answers = self._answers

        class Noting(DDGS):
            def _get_engines(self, category: str, backend: str) -> list[Any]:
                engines = super()._get_engines(category, backend)
                for engine in engines:
                    if not isinstance(engine.http_client, _Noting):
                        engine.http_client = _Noting(engine.http_client, engine.name, answers)  # type: ignore[assignment]
                return engines

        try:
            found = Noting(proxy=self._proxy, timeout=ENGINE_S, verify=VERIFY).text(
                query,
                region=region,
                timelimit=_RANGES[time_range] if time_range else None,
                max_results=max_results,
                backend=BACKENDS,
            )
        except DDGSException as exc:  # also its way to say that nothing was found
            self._error = exc
            return []
        return [_result(one) for one in found if re.match(r"https?://[^/]", str(one.get("href")))]

    def check(self, refusal: ToolError | None) -> None:
        """Raise what kept the engines from answering; return if a search engine answered and found nothing."""
        if any(status == 200 and name not in _ENCYCLOPAEDIAS for name, status in self._answers):
            return
        if refused := sorted({f"{name} ({status})" for name, status in self._answers if status in _REFUSALS}):
            message = f"The search engines refuse automatic searches for now: {', '.join(refused)}. Try again later."
            raise ToolError(message, code="rate_limited") from self._error
        if refusal is not None and not self._answers:
            raise refusal
        if "timed out" in str(self._error).lower() or "timeout" in str(self._error).lower():
            raise ToolError("The search engines did not answer in time.", code="timeout") from self._error
        statuses = ", ".join(sorted({f"{name} ({status})" for name, status in self._answers if status != 200}))
        message = f"No search engine answered{f': {statuses}' if statuses else ''}. Try again later."
        raise ToolError(message, code="unavailable") from self._error


class _Noting:
    """The HTTP client of an engine, which notes the status of every answer."""

    def __init__(self, inner: Any, name: str, answers: list[tuple[str, int]]) -> None:
        self._inner = inner
        self._name = name
        self._answers = answers

    def request(self, *args: Any, **kwargs: Any) -> Any:
        response = self._inner.request(*args, **kwargs)
        self._answers.append((self._name, response.status_code))
        return response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _result(found: dict[str, Any]) -> dict[str, str]:
    return {
        "title": str(found.get("title", ""))[:_MAX_CHARS],
        "url": str(found["href"]),
        "snippet": str(found.get("body", ""))[:_MAX_CHARS],
    }
