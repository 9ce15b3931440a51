import socket
import webbrowser

import pytest

from cliptide.demo.address import DEFAULT_PORT, PageAddress, PortTaken, choose_port, has_desktop, open_browser
from cliptide.demo.child_process import LOOPBACK, free_port


def test_the_next_port_is_chosen_if_the_usual_one_is_taken() -> None:
    with socket.socket() as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            first.bind((LOOPBACK, DEFAULT_PORT))
            first.listen()
        except OSError:
            pass  # somebody else has taken it, which is as good
        assert DEFAULT_PORT < choose_port(LOOPBACK, None) < DEFAULT_PORT + 100


def test_a_wanted_port_that_is_taken_is_refused_by_its_number() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            PortTaken, match=f"cannot listen at 127.0.0.1, port {port}: Address already in use"
        ):
            choose_port(LOOPBACK, port)


def test_a_wanted_port_is_kept_and_0_stands_for_any() -> None:
    port = free_port()
    assert choose_port(LOOPBACK, port) == port
    assert choose_port(LOOPBACK, 0) > 0


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortTaken, match=r"cannot listen at 192\.0\.2\.1"):
        choose_port("192.0.2.1", 8080)


@pytest.mark.parametrize(
    ("page", "url", "link_url", "link_host"),
    [
        (PageAddress("127.0.0.1", 81), "http://127.0.0.1:81", "http://127.0.0.1:81", "127.0.0.1:81"),
        (PageAddress("0.0.0.0", 81), "http://127.0.0.1:81", "http://127.0.0.1:81", "127.0.0.1:81"),
        (PageAddress("::1", 81), "http://[::1]:81", "http://[::1]:81", "[::1]:81"),
        (PageAddress("0.0.0.0", 81, "https://d.eu"), "http://127.0.0.1:81", "https://d.eu", "d.eu"),
    ],
    ids=["loopback", "everywhere", "ipv6", "public"],
)
def test_a_browser_of_this_machine_and_one_of_another_get_the_address_that_they_reach(
    page: PageAddress, url: str, link_url: str, link_host: str
) -> None:
    assert (page.url, page.link_url, page.link_host) == (url, link_url, link_host)


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "a 1 b 22"}, "linux", False),
        ({}, "darwin", True),
        ({"SSH_CONNECTION": "a 1 b 22"}, "darwin", False),
    ],
)
def test_a_browser_is_opened_only_where_there_is_a_desktop(
    environment: dict[str, str], platform: str, expected: bool
) -> None:
    assert has_desktop(environment, platform) is expected


def test_a_browser_that_would_take_the_terminal_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("w3m"))
    assert not open_browser("http://127.0.0.1:8080")
