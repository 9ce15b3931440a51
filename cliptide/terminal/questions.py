"""Questions to the person at the terminal. A program is never asked."""

from __future__ import annotations

import sys

import click


def can_ask() -> bool:
    """Whether a person can read a question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def is_confirmed(question: str) -> bool:
    """Ask, and return whether the answer is yes. The answer of an empty line is no."""
    return click.confirm(question, default=False, err=True)
