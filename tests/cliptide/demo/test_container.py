"""The image of the demo listens where the host can reach it. No container is run."""

from __future__ import annotations

import re
from pathlib import Path

import click

from cliptide.demo.__main__ import CONTEXT_SETTINGS, main
from cliptide.demo.address import PageAddress

DOCKERFILE = Path(__file__).parents[3] / "deploy" / "Dockerfile"


def demo_target() -> str:
    return DOCKERFILE.read_text().partition("FROM base AS demo\n")[2].partition("FROM ")[0]


def variables() -> dict[str, str]:
    return dict(re.findall(r"(CLIPTIDE_\w+)=(\S+)", demo_target()))


def test_every_variable_of_the_image_is_a_flag_of_the_demo() -> None:
    flags = {
        f"{CONTEXT_SETTINGS['auto_envvar_prefix']}_{str(flag.name).upper()}"
        for flag in main.params
        if isinstance(flag, click.Option)
    }
    assert variables()
    assert variables().keys() <= flags


def test_the_image_listens_beyond_its_own_loopback_at_the_port_that_it_exposes() -> None:
    host, port = variables()["CLIPTIDE_DEMO_HOST"], variables()["CLIPTIDE_DEMO_PORT"]
    page = PageAddress(host, int(port))
    assert not page.is_loopback
    assert re.findall(r"^EXPOSE (.*)$", demo_target(), re.MULTILINE) == [port]
    assert page.url == "http://127.0.0.1:8080"  # what the first line says is right on the host, too
