"""What an HTML page says: its main text as Markdown, its links, and what it tells about itself.

This file is a program too. HTML comes from anywhere, and the main text is found by hundreds of rules and regular
expressions: one JSON-LD block of 1 MB holds one of them for hours, and with it the interpreter lock, so a thread would
stop the whole engine. `page_reader` therefore runs it as a process that can be killed. It imports nothing of Dagbok,
opens no connection and may write no file.

One pass over the page (`_Outline`, linear) comes first. It finds the links and the visible text, and counts; only a
page that is not built to be slow goes on to trafilatura.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from contextlib import suppress
from typing import Any, BinaryIO, Final
from urllib.parse import urldefrag, urljoin, urlsplit

from lxml import etree  # type: ignore[import-untyped]  # it ships no types

MAX_ELEMENTS: Final = 50_000  # beyond, the visible text must do: 65,000 took 9 s and 2 GB
MAX_THOROUGH: Final = 10_000  # beyond, trafilatura leaves out the comparison with other methods, which is quadratic
MAX_ATTRIBUTES: Final = 200  # of one element; libxml2 builds them in quadratic time

CPU_S: Final = 20  # of one page; the slowest honest ones take 2 s
MEMORY_BYTES: Final = 2**30

_MAX_LINKS_SEEN = 10_000
_MAX_URL = 2048
_MAX_LABEL = 300  # characters of a title, an author, the text of a link
_HIDDEN = frozenset(("script", "style", "template", "svg", "iframe", "canvas", "object"))
_INLINE = frozenset({
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd", "label",
    "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
})  # fmt: skip


def read(html: str, *, url: str, max_chars: int, max_links: int) -> dict[str, Any]:
    """Return what the page at `url` says.

    Returns:
        {"title", "text", "truncated", "links": [{"url", "text"}], "author", "date" (as YYYY-MM-DD), "site_name",
        "language", "fault"}. What is not known is None. `fault` says why trafilatura gave no text, if it should have.
    """
    html = html.replace("\0", "")
    outline = _outline(html)
    document, fault = (None, None) if outline.heavy else _main_text(html, url, outline)
    text = (getattr(document, "text", None) or outline.text()).strip()
    return {
        "title": _label(getattr(document, "title", None)) or _label("".join(outline.title)),
        "text": _clean(text[:max_chars]),
        "truncated": len(text) > max_chars,
        "links": outline.links(url, max_links),
        "author": _label(getattr(document, "author", None)),
        "date": _label(getattr(document, "date", None)),
        "site_name": _label(getattr(document, "sitename", None)),
        "language": _label(outline.language),
        "fault": fault,
    }


def _main_text(html: str, url: str, outline: _Outline) -> tuple[object, str | None]:
    from trafilatura import bare_extraction

    try:
        document = bare_extraction(
            html,
            url=url,
            fast=outline.elements > MAX_THOROUGH,
            include_comments=False,
            include_formatting=True,
            with_metadata=True,
        )
    except Exception as exc:  # whatever a page makes it raise, MemoryError included, the visible text is there
        return None, f"{type(exc).__name__}: {str(exc)[:300]}"
    return document, None


def _outline(html: str) -> _Outline:
    outline = _Outline()
    # The encoding is named, so that no declaration of the page overrides it.
    parser = etree.HTMLParser(target=outline, encoding="utf-8", huge_tree=False)
    parser.feed(html.encode("utf-8", "replace"))
    with suppress(etree.XMLSyntaxError):  # nothing in it at all, or a limit of the parser: what was seen so far counts
        parser.close()
    return outline


class _Outline:
    """Receives the events of the parser; builds no tree, so nothing about it grows faster than the page."""

    def __init__(self) -> None:
        self.elements = 0
        self.attributes = 0  # of the element that has most
        self.title: list[str] = []
        self.language: str | None = None
        self._base = ""
        self._links: list[tuple[str, list[str]]] = []
        self._text: list[str] = []
        self._hidden = 0  # how many elements around us hide their text
        self._in_title = False
        self._in_link = False

    @property
    def heavy(self) -> bool:
        """Whether anything that is not linear should keep away from the page."""
        return self.elements > MAX_ELEMENTS or self.attributes > MAX_ATTRIBUTES

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.elements += 1
        self.attributes = max(self.attributes, len(attributes))
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "title":
            self._in_title = not self._hidden and not self.title
        elif tag == "a":
            self._in_link = "href" in attributes and len(self._links) < _MAX_LINKS_SEEN
            if self._in_link:
                self._links.append((attributes["href"], []))
        elif tag == "base":
            self._base = self._base or attributes.get("href", "")
        elif tag == "html":
            self.language = attributes.get("lang") or attributes.get("xml:lang")
        if tag not in _INLINE:
            self._text.append("\n")

    def end(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag == "title":
            self._in_title = False
        elif tag == "a":
            self._in_link = False
        if tag not in _INLINE:
            self._text.append("\n")

    def data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._hidden:
            self._text.append(data)
            if self._in_link:
                self._links[-1][1].append(data)

    def comment(self, text: str) -> None:
        """Ignore it; without this method lxml would hand comments to `data`."""

    def close(self) -> None:
        """Do nothing: lxml asks for it."""

    def text(self) -> str:
        """Return what a reader would see, a line per block."""
        lines = (" ".join(line.split()) for line in "".join(self._text).split("\n"))
        return "\n".join(line for line in lines if line)

    def links(self, url: str, limit: int) -> list[dict[str, str]]:
        """Return the first links that lead to another page, as absolute URLs without fragments, each once."""
        here = urldefrag(url).url
        found: dict[str, str] = {}
        for href, parts in self._links:
            if len(found) == limit:
                break
            target = _absolute(href, self._base, url)
            if target and target != here:
                found[target] = found.get(target) or _label("".join(parts)) or ""
        return [{"url": target, "text": text} for target, text in found.items()]


def _absolute(href: str, base: str, url: str) -> str | None:
    if len(href) > _MAX_URL or len(base) > _MAX_URL:
        return None
    try:
        target = urldefrag(urljoin(urljoin(url, base), href.strip())).url
        parts = urlsplit(target)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and len(target) <= _MAX_URL
    except ValueError:
        return None
    return _clean(target) if usable else None


def _label(text: str | None) -> str | None:
    text = " ".join((text or "").split())
    return _clean(text[:_MAX_LABEL]) or None


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Say that we are ready (one byte), then answer requests until there are no more.

    A request is the params of `read`, an answer what it returns, each as JSON after its length. Errors are said until
    we are ready; later nobody reads them.
    """
    import trafilatura  # noqa: F401  # half a second that is not the first page's

    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    answers.write(b"\n")
    answers.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    while head := requests.read(4):
        request = json.loads(requests.read(*struct.unpack(">I", head)))
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + CPU_S)
        answer = json.dumps(read(**request)).encode()
        answers.write(struct.pack(">I", len(answer)) + answer)
        answers.flush()


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    # A system without this limit (memory on macOS) refuses: the time that `page_reader` gives is then the only one.
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
