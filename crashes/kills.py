"""Writers killed by SIGKILL: at every call that changes the disk, or at random times.

Every writer is a fork of this process. A fork cannot use the threads that FAISS or Arrow may have
started before, so run it in a fresh process (`python -m crashes.campaign`).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import IndexRoot
from clip_index.writing.merge_worker import MergeLanes
from clip_index.writing.shard_writer import WriterSettings
from crashes.shard_life import (
    SETTINGS,
    check,
    go_back_to_format_1,
    has_index,
    live,
    open_and_check,
    recover_and_check,
)
from crashes.small_log import Log, build_log
from crashes.system_calls import Call, Observer, observed

_BEGINS_IN_FORMAT_1 = 5


class _KillAtStep(Observer):
    """Kills the process at its n-th step. A step is the start of a call, or a file just created and empty."""

    def __init__(self, number: int) -> None:
        self._num_left = number

    def before(self, call: Call) -> None:
        self._step()

    def after(self, call: Call) -> None:
        if call.name == "open":
            self._step()

    def _step(self) -> None:
        self._num_left -= 1
        if self._num_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def kills_at_every_step(directory: Path, *, seed: int) -> Iterator[list[str]]:
    """Yield the violations of each kill: of a new index, of one with generations, of one in format 1."""
    log = build_log(seed, 16)
    empty = Path(tempfile.mkdtemp(dir=directory))
    past, former = (empty.with_name(empty.name + suffix) for suffix in ("-past", "-format-1"))
    _in_a_fork(lambda: live(past, log[:8], _ignore))
    shutil.copytree(past, former)
    go_back_to_format_1(former)
    for start, until in ((empty, 4), (past, 16), (former, 16)):
        number, was_killed = 1, True
        while was_killed:
            with tempfile.TemporaryDirectory(dir=directory) as root:
                was_killed, violations = _kill_once(start, Path(root) / "root", log[:until], log, number)
            if was_killed:
                yield violations
            number += 1


def _kill_once(start: Path, root: Path, part: Log, log: Log, number: int) -> tuple[bool, list[str]]:
    shutil.copytree(start, root)

    def live_until_killed() -> None:
        with observed(_KillAtStep(number)):
            live(root, part, _ignore)

    status = _wait(_fork(live_until_killed, root))
    if status == 0:
        return False, []
    if status != -signal.SIGKILL:
        return True, [f"the writer failed at step {number}: {_report(root)}"]
    return True, _verdict(root, root, log, f"killed at step {number}")


def kills_at_random_times(
    directory: Path, *, seed: int, number: int, settings: WriterSettings = SETTINGS
) -> Iterator[list[str]]:
    """Yield the violations of each kill: up to 20 kills of one index, whose log grows, beside a reader.

    Every tenth writer merges in a child process, as the consumer does. The sixth finds an index in format 1.
    """
    dice = random.Random(seed)
    for start in range(0, number, 20):
        with tempfile.TemporaryDirectory(dir=directory) as root:
            for life in range(min(20, number - start)):
                log = build_log(seed + start, 24 * (life + 1))
                if life == _BEGINS_IN_FORMAT_1:
                    go_back_to_format_1(Path(root))
                path, life_of = Path(root), Life(log, settings, has_child=life % 10 == 9)
                yield killed_in_time(path, path, life_of, seconds=dice.uniform(0.0, 0.15))


@dataclass(frozen=True, slots=True)
class Life:
    """What a writer indexes before it is killed, and how. With a child it merges as the consumer does."""

    log: Log
    settings: WriterSettings = SETTINGS
    has_child: bool = False

    def begin(self, root: IndexRoot) -> None:
        lanes = MergeLanes() if self.has_child else None
        live(root, self.log, _ignore, lanes, settings=self.settings)


def killed_in_time(root: IndexRoot, report: Path, life: Life, *, seconds: float) -> list[str]:
    """Kill a writer after some time, beside a reader; return the violations. `report` names a file."""
    log = life.log
    writer = _fork(lambda: life.begin(root), report)
    reader = _fork(lambda: _read_on(root, log), report)
    time.sleep(seconds + life.has_child)
    os.kill(writer, signal.SIGKILL)
    status = _wait(writer)
    os.kill(reader, signal.SIGTERM)
    if status not in (0, -signal.SIGKILL):
        return [f"the writer failed: {_report(report)}"]
    if _wait(reader) not in (0, -signal.SIGTERM):
        return [f"a reader failed: {_report(report)}"]
    return _verdict(root, report, log, f"killed after {seconds:.3f} s", life.settings)


def _read_on(root: IndexRoot, log: Log) -> None:
    reader = IndexReader(root)
    while True:
        if has_index(root):
            reader.reload()
            assert reader.searcher is not None
            check(reader.searcher, log)


def _verdict(
    root: IndexRoot, report: Path, log: Log, circumstance: str, settings: WriterSettings = SETTINGS
) -> list[str]:
    def look_then_recover() -> None:
        open_and_check(root, log)
        recover_and_check(root, log, settings)

    return [] if _wait(_fork(look_then_recover, report)) == 0 else [f"{circumstance}: {_report(report)}"]


def _ignore(generation: int, next_offset: int) -> None:
    """Acknowledgements are not needed: the index itself is checked."""


def _in_a_fork(action: Callable[[], None]) -> None:
    with tempfile.TemporaryDirectory() as reports:
        if _wait(_fork(action, Path(reports))) != 0:
            raise RuntimeError(_report(Path(reports)))


def _fork(action: Callable[[], None], root: Path) -> int:
    """Run an action in a fork. The fork exits with 0, or with 1 after writing a report beside `root`."""
    child = os.fork()
    if child:
        return child
    try:
        action()
    except BaseException:  # noqa: BLE001  # the parent reports every error
        _report_path(root).write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _report_path(root: Path) -> Path:
    return root.with_name(root.name + ".report")


def _report(root: Path) -> str:
    path = _report_path(root)
    return path.read_text() if path.exists() else "no report"
