"""The real clock, on a machine whose time is set while it runs."""

from __future__ import annotations

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
