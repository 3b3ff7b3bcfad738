"""What runs in a process that is about to be killed, and beside it.

`embedded` is a program that uses the library; `served` is the command `dagbok serve`; `caller` is the client of a
server, in a process of its own. Each writes where it stands into the side log (`phase`).
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx2

from chaos import breakages
from chaos.driving import Driver
from chaos.engines import Embedded, Served
from chaos.sidelog import VARIABLE, SideLog
from chaos.tools import TOOLS
from dagbok import AsyncClient, Dagbok
from dagbok.cli.main import main as program
from dagbok.engine import scheduler
from dagbok.errors import DagbokError, DatabaseInUse, OutcomeUnknown, StoreUnavailable
from dagbok.outside import find_owner
from dagbok.settings import Settings, load

#: How long a victim waits for the lock of one that just died, or still lives.
_LOCK_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Job:
    """What a victim is told."""

    kind: str  # embedded | served | fresh (served, by an interpreter of its own) | caller
    url: str
    log: str
    seed: int
    plans: tuple[int, ...] = ()  # to be submitted
    until: str = "killed"  # or ended: leave by itself once every execution has ended
    max_concurrency: int = 64
    close_grace_s: float = 0.2
    park_after_s: float = 5.0
    server: int = 0  # for a caller: the pid of the server
    breakage: str = ""  # of `chaos.breakages`


def arguments(job: Job) -> list[str]:
    """Return the command line of a served victim."""
    return ["dagbok", "serve", "--port", "0", "--database", job.url, "--tools", "chaos.tools"]


def environment(job: Job) -> dict[str, str]:
    """Return the environment of a victim."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("DAGBOK_")}
    settings = {"DAGBOK_MAX_CONCURRENCY": job.max_concurrency, "DAGBOK_CLOSE_GRACE_S": job.close_grace_s}
    return own | {name: str(value) for name, value in settings.items()} | {VARIABLE: job.log}


def run(job: Job) -> int:
    """Do the job in this process; return its exit code."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.environ.clear()
    os.environ.update(environment(job))
    scheduler.PARK_AFTER_S = job.park_after_s  # no setting, and nobody has the patience for real ones
    breakages.apply(job.breakage)
    log = SideLog(job.log)
    try:
        if job.kind == "embedded":
            return asyncio.run(_embedded(job, log))
        if job.kind == "served":
            log.write("phase", phase="opening")
            sys.argv = arguments(job)
            program()
            return 0
        return asyncio.run(_caller(job, log))
    except KeyboardInterrupt:
        return 130
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1


async def _embedded(job: Job, log: SideLog) -> int:
    log.write("phase", phase="opening")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = load(database_url=job.url, max_concurrency=job.max_concurrency, close_grace_s=job.close_grace_s)
    async with AsyncExitStack() as stack:
        dagbok = await _opened(stack, settings, log)
        log.write("phase", phase="open")
        embedded = Embedded(dagbok)
        try:
            await _work(Driver(embedded, log, job.seed), job, stop)
        finally:
            await embedded.settle()  # a program that stops has time for that
            log.write("phase", phase="closing")
    log.write("phase", phase="closed")
    return 0


async def _opened(stack: AsyncExitStack, settings: Settings, log: SideLog) -> Dagbok:
    """Open an engine, once whoever has the database is dead."""
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            return await stack.enter_async_context(Dagbok(settings=settings, tools=TOOLS, command="victim"))
        except DatabaseInUse:
            if time.monotonic() > deadline:
                raise
            log.write("phase", phase="locked out")
            await asyncio.sleep(0.01)  # a lock tells nobody when it is free


async def _work(driver: Driver, job: Job, stop: asyncio.Event) -> None:
    """Use the engine until all is done, or somebody wants this process to stop."""
    using, stopping = asyncio.create_task(_use(driver, job)), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([using, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:  # Ctrl-C comes as a cancellation
        stopping.cancel()
        while not using.done():
            # Again and again: before Python 3.12 `asyncio.wait_for` may swallow one.
            # https://github.com/python/cpython/issues/86296
            using.cancel()
            await asyncio.wait([using], timeout=0.5)
        if not using.cancelled():
            using.result()


async def _use(driver: Driver, job: Job) -> None:
    await driver.resume_all()
    if job.until == "ended":
        await driver.submit(job.plans)
        await driver.until_all_ended()
        return
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(driver.submit(job.plans))
        tasks.create_task(driver.answer_for_ever())


async def _caller(job: Job, log: SideLog) -> int:
    settings = load(database_url=job.url)
    while (url := _url(settings, job.server)) is None:
        await asyncio.sleep(0.005)  # a server tells its URL to whoever looks at the lock
    log.write("phase", phase="open", of=job.server)
    async with AsyncClient(url) as client, httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        try:
            await _use(Driver(Served(url, client, http), log, job.seed), job)
        except* (StoreUnavailable, OutcomeUnknown, httpx2.TransportError):
            pass  # the server is dead; so will this process be
    return 0


def _url(settings: Settings, server: int) -> str | None:
    try:
        owner = find_owner(settings)
    except DagbokError:
        return None
    return owner.get("url") if owner and owner.get("pid") == server else None
