"""A listener without keys answers to its own names only."""

from __future__ import annotations

import pytest

from service.host_names import are_own_hosts, is_host_name

OWN = ["127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080", "192.0.2.7:80", "localhost", "LOCALHOST:8080"]
OWN += ["localhost.", "search.example", "Search.Example:443", "query_api:8082"]
FOREIGN = ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "", "x"]
FOREIGN += ["127.0.0.1@evil.example", "evil.example/127.0.0.1", "2130706433", "0x7f.1", "127.1", "::1"]
FOREIGN += [
    "[127.0.0.1]",
    "[::1",
    "localhost:evil",
    "search.example.evil.example",
    "sub.search.example",
    "..",
    "*",
]
NAMES = {"search.example", "query_api"}


@pytest.mark.parametrize("host", OWN)
def test_addresses_and_names_that_are_set_are_own_hosts(host: str) -> None:
    assert are_own_hosts([host], NAMES)


@pytest.mark.parametrize("host", FOREIGN)
def test_every_other_name_is_a_foreign_host(host: str) -> None:
    assert not are_own_hosts([host], NAMES)


def test_each_of_several_hosts_must_be_own() -> None:
    assert are_own_hosts([], NAMES)
    assert are_own_hosts(["localhost", "127.0.0.1"], NAMES)
    assert not are_own_hosts(["localhost", "evil.example"], NAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.example", True),
        ("query_api", True),
        ("a.example:80", False),
        ("*", False),
        ("", False),
        ("https://a", False),
    ],
)
def test_a_name_in_a_setting_has_no_scheme_and_no_port(text: str, expected: bool) -> None:
    assert is_host_name(text) is expected
