"""Answers that say much: gzipped in a thread where that pays, tagged where they can be asked for again."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import Final

from fastapi import Request, Response

from dagbok.api.headers import accepts_gzip
from dagbok.api.openapi import version
from dagbok.domain import svg
from dagbok.domain.diagram import MEDIA_TYPES

#: Smaller answers fit a packet or two either way.
MIN_GZIP_BYTES: Final = 1024
#: Of 1.5 MB of sub-steps level 5 leaves 20.4 % in 25 ms, level 3 22.2 % in 15, level 9 20.2 % in 82 (one core of 2025).
GZIP_LEVEL: Final = 5

_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS


def json(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer of JSON text."""
    return Response(content, status, headers, media_type="application/json")


def graph(content: bytes, format: str, headers: Mapping[str, str]) -> Response:
    """Return an answer that is a graph; a picture that is opened by itself may load nothing and run nothing."""
    guarded = {"Content-Security-Policy": svg.CSP} if format == "svg" else {}
    return Response(content, 200, {**headers, **guarded}, media_type=MEDIA_TYPES[format])


def again(response: Response, headers: Mapping[str, str]) -> Response:
    """Return another answer with the same content, and `headers` beside its own."""
    return Response(response.body, response.status_code, {**response.headers, **headers})


async def packed(request: Request, response: Response) -> Response:
    """Return `response` packed; in a thread, if there is much to do."""
    gzip = accepts_gzip(request.headers)
    if gzip and len(response.body) >= MIN_GZIP_BYTES:
        return await asyncio.to_thread(pack, response, gzip=True)
    return pack(response, gzip=False)


def tag(version_of: tuple[int, int]) -> str:
    """Return the ETag of an execution at that version (`Diary.version`): weak, because gzip changes the bytes.

    Another release may write the same rows in another way.
    """
    return f'W/"{version()}-{version_of[0]}-{version_of[1]}"'


def pack(response: Response, *, gzip: bool) -> Response:
    """Return `response`, gzipped if asked and worth it."""
    response.headers.add_vary_header("Accept-Encoding")
    if gzip and len(response.body) >= MIN_GZIP_BYTES:
        compressor = zlib.compressobj(GZIP_LEVEL, wbits=_GZIP_FORMAT)
        response.body = compressor.compress(response.body) + compressor.flush()
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(response.body))
    return response
