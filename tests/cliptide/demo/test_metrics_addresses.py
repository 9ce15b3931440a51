"""The demo says where metrics are, from what its services have logged."""

from pathlib import Path

from cliptide.demo.metrics_addresses import metrics_addresses


def test_the_addresses_are_those_that_the_services_logged_last(tmp_path: Path) -> None:
    (tmp_path / "query_api.log").write_text(
        '{"event": "loading the encoder"}\n'
        '{"event": "listening", "addresses": ["http://127.0.0.1:8080"], "metrics": "http://127.0.0.1:41111"}\n'
        "query_api: a last sentence\n"
    )
    (tmp_path / "consumer.log").write_text(
        '{"event": "consuming", "health_port": 42222}\n'
        '{"event": "stopped"}\n'
        '{"event": "consuming", "health_port": 43333}\n'
        '{"event": "consum'
    )
    assert metrics_addresses(tmp_path) == {
        "query service": "http://127.0.0.1:41111/metrics",
        "consumer": "http://127.0.0.1:43333/metrics",
    }


def test_without_logs_nothing_is_said(tmp_path: Path) -> None:
    assert metrics_addresses(tmp_path) == {}
