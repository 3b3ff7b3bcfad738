"""Names to addresses, by the system's resolver, in threads of its own: names that hang hold up nobody else.

asyncio resolves in the executor that reads of the diary share, whose few threads a few such names would take, and which
is joined when the process ends. These threads are daemons, and there are at most twice `MAX_NAMES` of them.
"""

from __future__ import annotations

import socket
from typing import Final

from dagbok.tools.lanes import ThreadLane

MAX_NAMES: Final = 32  # asked for at once; as many more that nobody waits for any longer


class SystemResolver:
    """Asks the system. Usable from several loops and threads at once."""

    def __init__(self) -> None:
        self._lane = ThreadLane(max_threads=MAX_NAMES, name="dagbok-resolve")

    async def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of `host` as text.

        Raises:
            OSError: It does not resolve; or so many names hang that no more are asked for.
        """
        if self._lane.abandoned >= MAX_NAMES:
            raise OSError(f"{MAX_NAMES} names that were asked for before it still have no answer; try again later")
        found = await self._lane.run(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        return [str(place[0]) for *_, place in found]
