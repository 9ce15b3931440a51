"""`python -m crashes.campaign`: kill writers, cut the power, damage files, let stores fail; count violations.

Prints one JSON object, and exits with 1 if there is any violation. The same seed gives the same
campaign, except for kills at random times.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from crashes.damage import build_index, damaged_files
from crashes.kills import kills_at_every_step, kills_at_random_times
from crashes.power_failures import power_failures
from crashes.shard_life import QUANTISED, small_lists
from crashes.store_damage import damaged_copies, damaged_objects
from crashes.store_faults import FAULTS_OF_A_LIFE, store_faults
from crashes.store_kills import store_kills

_MEMORY = Path("/dev/shm")  # power cuts are simulated on a model of the disk, so memory is enough


def step_kills(directory: Path, seed: int, number: int) -> Iterable[list[str]]:
    """Kill at every step of one history, then of the next, until `number` kills are made."""
    histories = (kills_at_every_step(directory, seed=seed + i) for i in range(number))
    return islice((violations for history in histories for violations in history), number)


def random_kills(directory: Path, seed: int, number: int) -> Iterable[list[str]]:
    return kills_at_random_times(directory, seed=seed, number=number)


def quantised_kills(directory: Path, seed: int, number: int) -> Iterator[list[str]]:
    with small_lists():
        yield from kills_at_random_times(directory, seed=seed, number=number, settings=QUANTISED)


def power_cuts(directory: Path, seed: int, number: int) -> Iterable[list[str]]:
    return power_failures(directory, seed=seed, number=number)


def damages(directory: Path, seed: int, number: int) -> Iterable[list[str]]:
    root = directory / "damaged"
    build_index(root)
    for damage in damaged_files(root, seed=seed, number=number):
        yield [f"{damage.kind}, {damage.change}: not noticed by the {opener}" for opener in damage.misses]


def damages_on_a_store(directory: Path, seed: int, number: int) -> Iterable[list[str]]:
    """Damage objects, then copies: half of the number each."""
    objects = damaged_objects(directory / "objects", seed=seed, number=number - number // 2)
    copies = damaged_copies(directory / "copies", seed=seed, number=number // 2)
    for damage in chain(objects, copies):
        yield [f"{damage.kind}, {damage.change}: not noticed by the {opener}" for opener in damage.misses]


def faults(directory: Path, seed: int, number: int) -> Iterable[list[str]]:
    """Let a store fail at requests of one life that are spread over it, then of the next life."""
    every = max(1, FAULTS_OF_A_LIFE // number)
    lives = (store_faults(directory, seed=seed + i, every=every) for i in range(number))
    return islice((violations for life in lives for violations in life), number)


def quantised_kills_on_a_store(directory: Path, seed: int, number: int) -> Iterator[list[str]]:
    with small_lists():
        yield from store_kills(directory, seed=seed, number=number, settings=QUANTISED)


def kills_on_a_store(directory: Path, seed: int, number: int) -> Iterable[list[str]]:
    return store_kills(directory, seed=seed, number=number)


CAMPAIGNS: dict[str, Callable[[Path, int, int], Iterable[list[str]]]] = {
    "step_kills": step_kills,
    "random_kills": random_kills,
    "quantised_kills": quantised_kills,
    "power_cuts": power_cuts,
    "damages": damages,
    "store_damages": damages_on_a_store,
    "store_faults": faults,
    "store_kills": kills_on_a_store,
    "quantised_store_kills": quantised_kills_on_a_store,
}
LONG = {
    "step_kills": 900,
    "random_kills": 100,
    "quantised_kills": 100,
    "power_cuts": 5000,
    "damages": 1000,
    "store_damages": 1000,
    "store_faults": 2 * FAULTS_OF_A_LIFE,
    "store_kills": 300,
    "quantised_store_kills": 100,
}
_NEED_A_BUCKET = ("store_kills", "quantised_store_kills")


def run(name: str, *, seed: int, number: int) -> dict[str, object]:
    """Return how many crashes were tried, how many led to a violation, and the first five violations."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as directory:
        results = list(CAMPAIGNS[name](Path(directory), seed, number))
    violations = [violation for found in results for violation in found]
    num_violating = sum(1 for found in results if found)
    return {"tried": len(results), "violating": num_violating, "violations": violations[:5]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CAMPAIGNS)}; all by default")
    parser.add_argument("--number", type=int, help="how many crashes of each kind")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    names = arguments.names or [name for name in CAMPAIGNS if name not in _NEED_A_BUCKET]
    found = {name: run(name, seed=arguments.seed, number=arguments.number or LONG[name]) for name in names}
    sys.stdout.write(json.dumps(found) + "\n")
    sys.exit(any(result["violating"] for result in found.values()))


if __name__ == "__main__":
    main()
