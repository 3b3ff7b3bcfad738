"""`dagbok serve`: one process that binds, opens the engine, answers, and stops without losing anything.

The order matters. The port is taken first, so that a second server fails before it touches the database; connections
are accepted only once everything is open. On SIGTERM or SIGINT: no new requests, those under way get a few seconds,
then the engine closes, and what still ran goes on at the next start. A second signal ends the process at once, which
the diary survives like any crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import uvicorn

from dagbok.api.app import create_app
from dagbok.app import Dagbok, Vault
from dagbok.errors import DatabaseInUse, Misconfigured
from dagbok.settings import Settings

log = logging.getLogger("dagbok.api")

#: How long requests under way may take to end.
GRACEFUL_SHUTDOWN_S: Final = 5
#: An idle connection is closed after so long.
KEEP_ALIVE_S: Final = 10
#: Of one request, request line and all.
MAX_HEADER_BYTES: Final = 64 * 1024
#: More than may wait and be under way together: those are answered in words, one connection too many is not.
MAX_CONNECTIONS: Final = 4_000
#: Ctrl-C reaches a process twice where a wrapper (`uv run`) passes it on; that is one wish, not two.
SECOND_SIGNAL_S: Final = 1.0

OnReady = Callable[[str], None]


class _Address(NamedTuple):
    family: socket.AddressFamily
    where: Any  # as `socket.bind` wants it
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address


def serve(
    settings: Settings, *, insecure: bool = False, on_ready: OnReady | None = None, secrets: Vault | None = None
) -> int:
    """Serve until a signal comes; return the exit code, 0.

    Args:
        insecure: Whether others than this computer may call. Until there are keys, all of them may do everything.
        on_ready: Called once with the URL, when requests are answered.
        secrets: Those that plans may name, if they were loaded already.

    Raises:
        Misconfigured: The address is not loopback and `insecure` is not given, or it cannot be bound.
        SchemaTooNew, StoreUnavailable: The engine cannot be opened.
        DatabaseInUse: Nor can it then; or, later, another engine took the database after this one had lost it.
    """
    address = resolve(settings.host, insecure=insecure)
    _allow_connections()
    with (
        _bind(address, settings.host, settings.port) as listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        return runner.run(_serve(settings, listener, on_ready, secrets))


def resolve(host: str, *, insecure: bool) -> _Address:
    """Return the address of `host` to bind: its first.

    Raises:
        Misconfigured: There is none, or one of them is not loopback and `insecure` is not given.
    """
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise Misconfigured(
            f"The host {host!r} cannot be resolved; use 127.0.0.1, or an address of this computer."
        ) from exc
    addresses = [
        _Address(family, where, ipaddress.ip_address(str(where[0]).partition("%")[0]))
        for family, _, _, _, where in found
    ]
    if not insecure and (open_to := [str(address.ip) for address in addresses if not _is_loopback(address.ip)]):
        raise Misconfigured(
            f"The host {host!r} is {', '.join(dict.fromkeys(open_to))}, which other computers may reach, and there are "
            "no keys yet: whoever reaches it can run any tool. Use --host 127.0.0.1, or --insecure if that is meant."
        )
    return addresses[0]


def url_of(listener: socket.socket) -> str:
    """Return the URL at which this computer reaches `listener`."""
    host, port = listener.getsockname()[:2]
    ip = ipaddress.ip_address(host.partition("%")[0])
    if ip.is_unspecified:
        ip = ipaddress.ip_address("127.0.0.1" if ip.version == 4 else "::1")
    return f"http://{f'[{ip}]' if ip.version == 6 else ip}:{port}"


def _is_loopback(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _bind(address: _Address, host: str, port: int) -> socket.socket:
    listener = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        # A port that only lingers from an earlier server (TIME_WAIT) is free; one that is listened to is not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.where[0], port, *address.where[2:]))
        # Bound alone, a port may be bound again; listening is what takes it.
        listener.listen(2048)
    except OSError as exc:
        listener.close()
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        advice = "choose another with --port, or --port 0 for any free one"
        raise Misconfigured(f"Port {port} of {host} cannot be used: {reason}; {advice}.", host=host, port=port) from exc
    return listener


def _allow_connections() -> None:
    """Let this process have as many files open as it takes connections, as far as the system allows.

    The usual limit, 1,024, is there for programs that use `select`; see `man 2 getrlimit`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS  # database, tools and their children need some, too
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return None
    return uvloop.new_event_loop


class _Server(uvicorn.Server):
    """Uvicorn, but the signals are ours: it would end the process by the signal again after stopping."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None], on_stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._on_stopping = on_stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Stop:
    """Hears SIGTERM and SIGINT from the start of opening to the end of closing."""

    def __init__(self) -> None:
        self.wished = False
        self.opening: asyncio.Future[Any] | None = None  # while the engine opens, which a database may hold up for ever
        self.server: _Server | None = None
        self.error: DatabaseInUse | None = None  # what ends this process, if no signal does
        self._first_at = 0.0

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Only the main thread may; a server in another one (a test) is stopped otherwise.
            with contextlib.suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, self._heard, number)

    def because_of(self, error: DatabaseInUse) -> None:
        """Stop for that reason, unless it stops already."""
        if not self.wished:
            self.error = error
            self._begin()

    def _heard(self, number: signal.Signals) -> None:
        if not self.wished:
            log.info("stopping on %s; what runs goes on at the next start", number.name)
            self._begin()
        elif time.monotonic() - self._first_at > SECOND_SIGNAL_S:
            os._exit(128 + number)

    def _begin(self) -> None:
        self.wished, self._first_at = True, time.monotonic()
        if self.opening is not None:
            self.opening.cancel()
        if self.server is not None:
            self.server.should_exit = True


async def _serve(settings: Settings, listener: socket.socket, on_ready: OnReady | None, secrets: Vault | None) -> int:
    stop = _Stop()
    stop.listen()
    loop = asyncio.get_running_loop()
    url = url_of(listener)
    async with contextlib.AsyncExitStack() as stack:
        engine = Dagbok(settings=settings, secrets=secrets, command="dagbok serve", recover=True)
        stop.opening = asyncio.ensure_future(stack.enter_async_context(engine))
        try:
            dagbok = await stop.opening
        except asyncio.CancelledError:
            if not stop.wished:
                raise
        finally:
            stop.opening = None
        if stop.wished:
            return 0
        # An engine that can never write again must not look like one that works.
        dagbok.lock.on_taken(lambda error: loop.call_soon_threadsafe(stop.because_of, error))
        await asyncio.to_thread(dagbok.lock.set_url, url)
        ip = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
        hosts = (settings.host, str(ip))
        app = create_app(dagbok, hosts=hosts, any_address=ip.is_unspecified)
        server = stop.server = _Server(_config(app), lambda: on_ready(url) if on_ready else None, app.state.waiting.end)
        if not stop.wished:
            await server.serve(sockets=[listener])
    if stop.error is not None:
        raise stop.error
    return 0


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        # h11 bounds the size of headers, and passes over a body that was refused; both are counted on here.
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
    )
