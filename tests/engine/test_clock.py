"""The real clock, on a machine whose time is set while it runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dagbok.engine import clock
from dagbok.engine.clock import SystemClock

HOUR_S, DAY_S = 3600.0, 86_400.0


class Machine:
    """The two clocks of a machine."""

    def __init__(self) -> None:
        self.wall_s, self.monotonic_s = 1_800_000_000.0, 50.0

    def time(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.monotonic_s

    def pass_(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(clock, "time", made)
    return made


def test_time_passes_as_it_does(machine: Machine) -> None:
    ours = SystemClock()
    before = ours.now_ms()
    assert before == 1_800_000_000_000
    machine.pass_(1.5)
    assert ours.now_ms() == before + 1500


def test_a_clock_that_is_set_back_neither_stops_time_nor_repeats_it(machine: Machine) -> None:
    ours = SystemClock()
    before = ours.now_ms()
    machine.wall_s -= HOUR_S
    assert ours.now_ms() == before
    machine.pass_(2)
    assert ours.now_ms() == before + 2000


def test_a_clock_that_is_set_forward_is_followed(machine: Machine) -> None:
    """A laptop that slept for a day: what was due meanwhile is due."""
    ours = SystemClock()
    before = ours.now_ms()
    machine.wall_s += DAY_S
    assert ours.now_ms() == before + round(DAY_S * 1000)
    machine.pass_(1)
    assert ours.now_ms() == before + round(DAY_S * 1000) + 1000


def test_small_corrections_are_no_jumps(machine: Machine) -> None:
    ours = SystemClock()
    before = ours.now_ms()
    machine.wall_s += 0.5
    assert ours.now_ms() == before


def test_what_is_due_at_a_time_rings_then_and_not_before(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[tuple[float, Callable[[], None]]] = []

    class Handle:
        def cancel(self) -> None:
            naps.clear()

    def call_later(_: SystemClock, delay_s: float, callback: Callable[[], None]) -> Handle:
        naps.append((delay_s, callback))
        return Handle()

    monkeypatch.setattr(SystemClock, "call_later", call_later)
    ours = SystemClock()
    rung: list[int] = []

    def wake() -> float:
        delay_s, callback = naps.pop()
        machine.pass_(delay_s)
        callback()
        return delay_s

    ours.call_at(ours.now_ms() + 70_000, lambda: rung.append(ours.now_ms()))
    assert [wake(), wake(), wake()] == [clock.LONGEST_NAP_S, clock.LONGEST_NAP_S, pytest.approx(10)]
    assert (rung, naps) == ([1_800_000_070_000], [])

    ours.call_at(ours.now_ms() + 70_000, lambda: rung.append(ours.now_ms()))
    machine.wall_s += DAY_S  # a laptop that slept: what was due meanwhile rings with the next nap
    wake()
    assert len(rung) == 2

    ours.call_at(ours.now_ms() + 70_000, lambda: rung.append(0)).cancel()
    assert naps == []
