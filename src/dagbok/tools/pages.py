"""`fetch_page` and `fetch_urls`: web pages as text that a model can read."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from dataclasses import replace
from typing import Annotated, Any, Final
from urllib.parse import urldefrag

from pydantic import Field

from dagbok.errors import ToolError
from dagbok.tools import urls as web  # `urls` is a param of `fetch_urls`
from dagbok.tools.context import ToolContext
from dagbok.tools.decorator import tool
from dagbok.tools.egress import Fetched
from dagbok.tools.http import Seconds, Text, failure
from dagbok.tools.page_reader import PageReader

MAX_PAGE_BYTES: Final = 4 * 2**20  # of HTML or text, unpacked
MAX_PER_HOST: Final = 4  # requests to one host at a time
_MAY_PASS: Final = frozenset(("timeout", "rate_limited", "unavailable"))  # codes of what may succeed later
_NO_TEXT: Final = "The page holds no text. It may be filled in by scripts, which are not run."

_HTML = ("text/html", "application/xhtml+xml")
_TEXT = frozenset(
    f"application/{kind}" for kind in ("json", "xml", "javascript", "yaml", "x-yaml", "toml", "x-ndjson", "sql")
)
_ACCEPT = "text/html, application/xhtml+xml, text/plain;q=0.9, application/json;q=0.8, */*;q=0.1"
_META_BYTES: Final = 4096  # where a declaration counts; the HTML standard says 1024
# A server chooses what these are matched with: each element is looked at once, and every repetition is bounded.
_META = re.compile(rb"<meta[\s/]([^<>]{1,400})", re.IGNORECASE)
_CHARSET = re.compile(rb"""charset\s{0,9}=\s{0,9}["']?\s{0,9}([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE)


@tool(effect="pure", aliases=("fetchPage", "fetch_url", "fetchUrl"))
async def fetch_page(
    context: ToolContext,
    url: Text,
    max_chars: Annotated[int, Field(ge=1, le=2_000_000)] = 50_000,
    max_links: Annotated[int, Field(ge=0, le=1000)] = 100,
    timeout_seconds: Seconds | None = None,
) -> dict[str, Any]:
    """Read a web page: its main text as Markdown, without menus and advertisements. Scripts are not run.

    Plain text, JSON, CSV and XML come as they are.

    Args:
        url: http or https, on the public Internet.
        max_chars: Of the text; the rest is cut, and `truncated` says so.
        max_links: The first links of the page; 0 for none.
        timeout_seconds: For fetching it.

    Returns:
        {"url" (where it was in the end, without a query that a redirect brought), "title", "text", "truncated",
        "links": [{"url", "text"}], "author", "date", "site_name", "language", "note"}. What is not known is null;
        `note` says why there is no text.
    """
    async with context.page_reader.here() as reader:
        return await _read(context, reader, url, max_chars, max_links, timeout_seconds)


@tool(effect="pure", aliases=("fetchURLs", "fetchUrls"), timeout_seconds=900)
async def fetch_urls(
    context: ToolContext,
    urls: Annotated[list[Text], Field(min_length=1, max_length=100)],
    max_concurrency: Annotated[int, Field(ge=1, le=32)] = 8,
    max_chars: Annotated[int, Field(ge=1, le=100_000)] = 20_000,
    max_links: Annotated[int, Field(ge=0, le=100)] = 20,
    timeout_seconds: Seconds | None = None,
) -> list[dict[str, Any]]:
    """Read several web pages at once, each as `fetch_page` does. One that fails does not harm the others.

    Args:
        urls: At most 100. One that is there twice is fetched once.
        max_concurrency: How many at a time; of one host at most 4.
        max_chars: Of the text of each page.
        max_links: Of each page.
        timeout_seconds: For fetching each page.

    Returns:
        In the order of `urls`, {"url", "ok": true, "page": as from `fetch_page`} or {"url", "ok": false, "error":
        {"code", "message"}}. If every one failed, that is an error: of the code that they share, `unavailable` if each
        may succeed later, else `all_failed`.
    """
    turns = asyncio.Semaphore(max_concurrency)
    hosts: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MAX_PER_HOST))
    wanted = {url: urldefrag(url).url for url in urls}
    found: dict[str, dict[str, Any]] = {}
    waits: list[float] = []  # that servers ask for

    async def fetch(url: str) -> None:
        # The host first: those who wait for a busy one must not hold up the others.
        async with hosts[_host(url)], turns:
            try:
                page = await _read(context, reader, url, max_chars, max_links, timeout_seconds)
                found[url] = {"ok": True, "page": page}
            except ToolError as exc:
                found[url] = {"ok": False, "error": {"code": exc.code, "message": exc.message}}
                waits.append(exc.fields.get("retry_after_s", 0.0))
            except Exception as exc:  # a page that finds a hole in our code; the others have done nothing
                context.logger.exception("reading a page failed: %s", url.partition("?")[0])
                message = f"{type(exc).__name__}: {context.redact(str(exc))[:300]}"
                found[url] = {"ok": False, "error": {"code": "tool_error", "message": message}}
        context.progress(f"{len(found)} of {total} pages", len(found) / total)

    distinct = list(dict.fromkeys(wanted.values()))
    total = len(distinct)
    async with context.page_reader.here() as reader:
        tasks = [asyncio.ensure_future(fetch(url)) for url in distinct]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    if not any(one["ok"] for one in found.values()):
        raise _all_failed([one["error"] for one in found.values()], max(waits, default=0.0))
    return [{"url": url, **found[wanted[url]]} for url in urls]


async def _read(
    context: ToolContext, reader: PageReader, url: str, max_chars: int, max_links: int, timeout_s: float | None
) -> dict[str, Any]:
    answer = await context.egress.fetch(
        "GET", url, headers={"Accept": _ACCEPT}, timeout_s=timeout_s, max_bytes=MAX_PAGE_BYTES
    )
    if not 200 <= answer.status < 300:
        raise failure(context, "GET", answer)
    if not _is_html(answer):
        return _as_it_is(answer, max_chars)
    page = await reader.read(_decoded(answer), url=answer.url, max_chars=max_chars, max_links=max_links)
    if fault := page.pop("fault"):
        shown = web.read(answer.url).shown
        context.logger.warning("the main text of %s was not found, its visible text is used: %s", shown, fault)
    return {"url": _where(answer), **page, "note": None if page["text"] else _NO_TEXT}


def _as_it_is(answer: Fetched, max_chars: int) -> dict[str, Any]:
    kind = answer.media_type
    text = answer.text()
    if not (kind in _TEXT or kind.startswith("text/") or kind.endswith(("+json", "+xml")) or not kind) or "\0" in text:
        message = (
            f"{web.read(answer.url).shown} is {kind[:100] or 'no text'}, which is not read as a page. "
            "`http_request` gives any content, as base64 where it is no text."
        )
        raise ToolError(message, code="unsupported_media_type")
    unknown = dict.fromkeys(("author", "date", "site_name", "language", "note"))
    return {
        "url": _where(answer),
        "title": None,
        "text": text[:max_chars],
        "truncated": len(text) > max_chars,
        "links": [],
        **unknown,
    }


def _is_html(answer: Fetched) -> bool:
    if answer.media_type:
        return answer.media_type in _HTML
    begin = answer.content[:512].lower()
    return b"<html" in begin or b"<!doctype html" in begin


def _decoded(answer: Fetched) -> str:
    """Return the text of HTML: by its mark, the charset of the header, or the one that it declares itself."""
    if answer.charset is None and (label := _declared(answer.content)):
        # ASCII was read to find it, so it is not UTF-16, whatever it says (HTML standard, 13.2.3.2).
        label = "utf-8" if label.startswith("utf-16") else label
        answer = replace(answer, headers={"content-type": f"text/html; charset={label}"})
    return answer.text()


def _declared(content: bytes) -> str:
    """Return the charset that HTML declares for itself in lower case, empty if it declares none."""
    for element in _META.finditer(content[:_META_BYTES]):
        if found := _CHARSET.search(element[1]):
            return found[1].decode().lower()
    return ""


def _where(answer: Fetched) -> str:
    """Return where a page is in the end.

    A query that the plan asked for is a part of that (`?id=7`). One that a redirect brought may hold a key, so it is
    left out, as `http_request` does.
    """
    place, _, query = answer.url.partition("?")
    asked = answer.redirects[0] if answer.redirects else answer.url
    return answer.url if query == asked.partition("?")[2] else place


def _host(url: str) -> str:
    try:
        return web.read(url).host
    except ToolError:
        return ""  # it will fail by itself, with a message


def _all_failed(errors: list[dict[str, str]], wait_s: float) -> ToolError:
    codes = {error["code"] for error in errors}
    shown = "; ".join(error["message"] for error in errors[:3])
    message = f"None of the {len(errors)} pages could be read ({', '.join(sorted(codes))}): {shown}"
    code = codes.pop() if len(codes) == 1 else "unavailable" if codes <= _MAY_PASS else "all_failed"
    fields = {"retry_after_s": wait_s} if wait_s else {}
    return ToolError(message, code=code, **fields)
