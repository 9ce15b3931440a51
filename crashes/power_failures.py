"""Simulated power cuts: writers run and die on a recorded disk, and states of that disk are opened."""

from __future__ import annotations

import contextlib
import random
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crashes.disk_model import DiskModel, write_state
from crashes.shard_life import BATCH, Violation, go_back_to_format_1, live, open_and_check, recover_and_check
from crashes.small_log import Log, build_log
from crashes.system_calls import Call, Observer, observed

_CUT_SHARE = 0.1


class Died(BaseException):
    """The writer's process has died; none of its later calls reaches the disk."""


@dataclass(frozen=True)
class _State:
    """A disk after a power cut, with the generation and next offset acknowledged before the cut."""

    path: Path
    acknowledged: tuple[int, int]


class _Recorder(Observer):
    """Records calls on the disk model, lets the process die after some, and cuts the power at random."""

    def __init__(self, model: DiskModel, directory: Path, dice: random.Random) -> None:
        self._model = model
        self._directory = directory
        self._dice = dice
        self._calls_to_live = 0
        self._is_cutting = False
        self._acknowledged = (0, 0)
        self.states: list[_State] = []

    def live_for(self, num_calls: int) -> None:
        self._calls_to_live = num_calls

    def acknowledge(self, generation: int, next_offset: int) -> None:
        self._acknowledged = (generation, next_offset)

    def before(self, call: Call) -> None:
        if self._is_cutting:
            return
        if self._calls_to_live == 0:
            raise Died
        self._calls_to_live -= 1

    def after(self, call: Call) -> None:
        if self._is_cutting:
            return
        self._model.follow(call)
        if self._dice.random() < _CUT_SHARE:
            self._is_cutting = True
            state = _State(self._directory / f"state-{len(self.states)}", self._acknowledged)
            write_state(self._model.top, state.path, self._dice)
            self.states.append(state)
            self._is_cutting = False


def power_failures(directory: Path, *, seed: int, number: int) -> Iterator[list[str]]:
    """Yield the violations of each of `number` states after a power cut."""
    dice = random.Random(seed)
    num_left = number
    while num_left:
        log = build_log(dice.randrange(10**6), 16)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            for state in _record(Path(scratch), log, dice)[:num_left]:
                num_left -= 1
                yield _verdict(state, log)


def _record(directory: Path, log: Log, dice: random.Random) -> list[_State]:
    """Write the log with a few deaths on the way, and return the disk states of some power cuts.

    Every second time the log's first half lies in an index of format 1 already.
    """
    disk = directory / "disk"
    disk.mkdir()
    model = DiskModel(disk)
    recorder = _Recorder(model, directory, dice)
    if dice.random() < 0.5:
        live(disk / "root", log[: len(log) // 2], recorder.acknowledge)
        go_back_to_format_1(disk / "root")
        model.settle()
    with observed(recorder):
        for num_calls in (*_short_lives(dice), 10_000):
            recorder.live_for(num_calls)
            with contextlib.suppress(Died):
                live(disk / "root", log, recorder.acknowledge)
    return recorder.states


def _short_lives(dice: random.Random) -> list[int]:
    """Draw the calls before each death: often so few that index, shard or takeover is half made."""
    return [dice.randint(1, dice.choice([20, 150])) for _ in range(dice.randint(0, 6))]


def _verdict(state: _State, log: Log) -> list[str]:
    root = state.path / "root"
    try:
        found = open_and_check(root, log)
        if found[0] < state.acknowledged[0] or found[1] < state.acknowledged[1]:
            raise Violation(f"acknowledged {state.acknowledged}, found {found}")
        recover_and_check(root, log[: found[1] + BATCH])
    except Exception:  # noqa: BLE001  # any error of a reader or writer here is a violation
        return [f"{state.path.name}: {traceback.format_exc()}"]
    return []
