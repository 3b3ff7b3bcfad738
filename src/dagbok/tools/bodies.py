"""The body of an answer, bounded: never more bytes in memory than allowed, however small they were packed."""

from __future__ import annotations

import zlib
from typing import Final

from dagbok.errors import ToolError

#: Sent as `Accept-Encoding`: what `Body` unpacks.
ENCODINGS: Final = "gzip, deflate"

#: More pieces than these, of fewer bytes on average, are an attack on our time, as each takes 20 microseconds. Servers
#: that send every row of a table as a piece of its own stay below.
MAX_CHUNKS: Final = 100_000
MIN_CHUNK_BYTES: Final = 16

_GZIP = zlib.MAX_WBITS | 16
_RAW = -zlib.MAX_WBITS


class Body:
    """Collects the chunks of one body, unpacked."""

    def __init__(self, encoding: str, *, max_bytes: int, shown: str) -> None:
        """Begin a body.

        Args:
            encoding: The `Content-Encoding`, empty if there was none.
            max_bytes: Of the unpacked body.
            shown: The URL for messages.

        Raises:
            ToolError: `bad_response`: an encoding that was not asked for, or several.
        """
        self._kind = encoding.strip().lower().removeprefix("x-")
        if self._kind not in ("", "identity", "gzip", "deflate"):
            message = f"{shown} answers in the encoding {encoding[:50]!r}, which was not asked for."
            raise ToolError(message, code="bad_response")
        self._max = max_bytes
        # Packing makes nothing much larger, but empty blocks unpack to nothing and could go on for ever.
        self._max_packed = max_bytes + max_bytes // 100 + 1024
        self._taken = 0  # bytes of the wire
        self.chunks = 0  #: that were taken
        self._shown = shown
        self._content = bytearray()
        self._unpacking: zlib._Decompress | None = None

    @property
    def _is_packed(self) -> bool:
        return self._kind in ("gzip", "deflate")

    def expect(self, size: int) -> None:
        """Raise ToolError `too_large` if a body of `size` bytes on the wire cannot fit."""
        if size > (self._max_packed if self._is_packed else self._max):
            raise self._too_large(f"{size:,} bytes")

    def add(self, chunk: bytes) -> None:
        """Take the next bytes from the wire.

        Raises:
            ToolError: `too_large`; `bad_response`: they cannot be unpacked, or come in crumbs.
        """
        self.chunks += 1
        self._taken += len(chunk)
        if self.chunks > MAX_CHUNKS and self._taken < self.chunks * MIN_CHUNK_BYTES:
            message = f"The answer of {self._shown} comes in more than {MAX_CHUNKS:,} pieces of a few bytes each."
            raise ToolError(message, code="bad_response")
        if not self._is_packed:
            if len(self._content) + len(chunk) > self._max:
                raise self._too_large()
            self._content += chunk
            return
        if self._taken > self._max_packed:
            raise self._too_large()
        try:
            while chunk:
                chunk = self._unpack(chunk)
        except zlib.error as exc:
            message = f"The answer of {self._shown} is no valid {self._kind}: {exc}."
            raise ToolError(message, code="bad_response") from exc

    def finish(self) -> bytes:
        """Return the whole body.

        Raises:
            ToolError: `unavailable`: a packed body ended too early.
        """
        if self._unpacking is not None and not self._unpacking.eof:
            raise ToolError(f"The answer of {self._shown} is cut off.", code="unavailable")
        return bytes(self._content)

    def _unpack(self, chunk: bytes) -> bytes:
        """Unpack a part of `chunk` and return the rest of it."""
        if self._unpacking is None or self._unpacking.eof:  # a gzip body may have several members
            self._unpacking = zlib.decompressobj(self._window(chunk[0]))
        room = self._max - len(self._content)
        self._content += self._unpacking.decompress(chunk, room + 1)
        if len(self._content) > self._max:
            raise self._too_large()
        return self._unpacking.unconsumed_tail or self._unpacking.unused_data

    def _window(self, first: int) -> int:
        if self._kind == "gzip":
            return _GZIP
        # `deflate` means zlib, but some servers send it bare (RFC 9110, 8.4.1.2); a zlib header has 8 in its low bits.
        return zlib.MAX_WBITS if first & 0x0F == 8 else _RAW

    def _too_large(self, size: str = "more") -> ToolError:
        message = f"The answer of {self._shown} has {size}; at most {self._max:,} bytes are taken."
        return ToolError(message, code="too_large", limit=self._max)
