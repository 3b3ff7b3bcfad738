"""Those who use the engine: they submit plans, pause some, ask for the end of others, and let people have their say.

They do so through the library inside a victim, or over HTTP from a process of their own, and write into the side log
what they are about to do and what was accepted.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable
from typing import Literal

from chaos import plans, sidelog
from chaos.engines import Engine
from chaos.people import People
from chaos.sidelog import SideLog
from chaos.stepping_in import SteppingIn
from dagbok.errors import DagbokError

#: Between two looks of a person into the inbox.
_LOOK_S = 0.02
#: So many of them come to one look at everything.
_LOOKS = 6


class Driver:
    """Uses one engine for as long as it lives."""

    def __init__(self, engine: Engine, log: SideLog, seed: int, breathe_s: float = 0.0) -> None:
        self._engine, self._log, self._seed = engine, log, seed
        self._breathe_s = breathe_s
        self._people = People(engine, log, seed)
        self._stepping_in = SteppingIn(engine, log, seed)

    async def until_all_ended(self) -> None:
        """Return once nothing is unfinished, and nobody wants to step in any more."""
        while await self._engine.unfinished() or await self._stepping_in.look():
            await self._people.answer(await self._people.look())
            await asyncio.sleep(_LOOK_S)  # as a person would look again; nobody tells another process

    async def answer_for_ever(self) -> None:
        """Answer what is asked and step in, until cancelled."""
        for number in itertools.count():
            if number % _LOOKS == 0:
                await self._stepping_in.look()
            questions = await self._people.look()
            await self._stepping_in.doubt(questions, self._people)
            await self._people.answer(questions)
            await asyncio.sleep(_LOOK_S)

    async def submit(self, numbers: Iterable[int]) -> None:
        """Submit plans, one after the other, and cancel or pause those that are to be."""
        async with asyncio.TaskGroup() as others:
            for number in numbers:
                planned = plans.make(self._seed, number)
                self._log.write("intend", plan=number)
                try:
                    execution_id, replayed = await self._engine.submit(planned)
                except DagbokError as exc:
                    self._log.write("refused", plan=number, code=exc.code, message=str(exc))
                    continue
                self._log.write("accepted", plan=number, execution=execution_id, replayed=replayed)
                if planned.cancelled:
                    others.create_task(self._cancel(number, execution_id))
                if planned.paused:
                    others.create_task(self._pause(number, execution_id))
                await asyncio.sleep(self._breathe_s)

    async def resume_all(self) -> None:
        """Let go on what somebody paused who did not live to do that, and ask again for forks nobody was told of."""
        lines, _ = sidelog.read(self._log.path)
        last = {line["execution"]: line["what"] for line in lines if line["what"] in ("pause", "resumed")}
        for execution_id, what in last.items():
            if what == "pause":
                await self._ask("resume", execution_id)
        await self._stepping_in.repeat()

    async def _cancel(self, number: int, execution_id: str) -> None:
        await asyncio.sleep(random.Random(f"{self._seed}/cancel/{number}").uniform(0, 0.3))
        await self._ask("cancel", execution_id)

    async def _pause(self, number: int, execution_id: str) -> None:
        rng = random.Random(f"{self._seed}/pause/{number}")
        await asyncio.sleep(rng.uniform(0, 0.2))
        await self._ask("pause", execution_id)
        await asyncio.sleep(rng.uniform(0, 0.4))
        await self._ask("resume", execution_id)

    async def _ask(self, what: Literal["cancel", "pause", "resume"], execution_id: str) -> None:
        """Ask something of an execution that is durable once it is accepted."""
        ways = {"cancel": self._engine.cancel, "pause": self._engine.pause, "resume": self._engine.resume}
        self._log.write(what, execution=execution_id)
        try:
            await ways[what](execution_id)
        except DagbokError as exc:
            self._log.write("refused", execution=execution_id, code=exc.code, message=str(exc))
        else:
            self._log.write(f"{what}d" if what != "cancel" else "cancelled", execution=execution_id)
