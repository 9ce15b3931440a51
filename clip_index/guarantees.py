"""What an engine guarantees about an index. An index in a directory keeps all of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Guarantees:
    """Each is true or false for the whole index.

    `atomic_generations`: an answer shows exactly the changes below its `next_offset`; otherwise it may
    show later ones, too. `stable_pages`: further pages show the generation of the first one.
    `complete_answers`: k contents are found wherever k exist and pass the filter. `measured_recall`: how
    many of the ten best contents are found is measured at each merge and held at a target.
    `verified_files`: every file is compared with its digest. `rollback`: former generations are kept, and
    an operator can go back to one. `timely_erasure`: deleted contents leave the disk within a set time.
    """

    atomic_generations: bool = True
    stable_pages: bool = True
    complete_answers: bool = True
    measured_recall: bool = True
    verified_files: bool = True
    rollback: bool = True
    timely_erasure: bool = True
