"""Threads in each of which torch computes on one processor, whatever it does in other threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_T = TypeVar("_T")


def on_one_processor(call: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> _T:
    """Call a function in which torch computes on one processor.

    Loading a model reads memory most of the time. With two processors it took a third more CPU time and was
    no quicker, and the queries that are answered meanwhile need the second one.
    """
    with single_threads(1) as threads:
        return threads.submit(call, *arguments, **options).result()


def single_threads(num_threads: int) -> ThreadPoolExecutor:
    """Start so many threads. In each of them torch computes on one processor."""
    num_of_process = torch.get_num_threads()
    have_started = Barrier(num_threads + 1)

    def start() -> None:
        torch.get_num_threads()  # the first call copies the process's number, which would undo the next line
        torch.set_num_threads(1)
        have_started.wait()

    threads = ThreadPoolExecutor(num_threads, "encoder", initializer=start)
    for _ in range(num_threads):
        threads.submit(int)  # starts one more thread, because none is idle until all have started
    have_started.wait()
    # a thread's setting also becomes the process's, which later threads copy: they must not compute on one
    torch.set_num_threads(num_of_process)
    return threads
