"""The environment, read once; what cannot be used is named in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from query_api.settings import IndexSettings, QueryApiSettings, read_settings
from service.environment import BadSettings
from service.sections import KafkaSection

BAD = {
    "a port that is no number": ("CLIPTIDE_QUERY_API__PORT", "http"),
    "a port out of range": ("CLIPTIDE_QUERY_API__PORT", "65536"),
    "an unknown name": ("CLIPTIDE_QUERY_API__PORRT", "8080"),
    "an unknown name of the encoder": ("CLIPTIDE_ENCODER__MODDEL", "ViT-B-32"),
    "an unknown precision": ("CLIPTIDE_ENCODER__PRECISION", "fp8"),
    "an interval of zero": ("CLIPTIDE_QUERY_API__RELOAD_INTERVAL_SECONDS", "0"),
    "an address beyond loopback without a key": ("CLIPTIDE_QUERY_API__HOST", "0.0.0.0"),
    "every address without a key": ("CLIPTIDE_QUERY_API__HOST", "::"),
    "a host name without a key": ("CLIPTIDE_QUERY_API__HOST", "search.example"),
    "a shared port without shared metrics": ("CLIPTIDE_QUERY_API__REUSE_PORT", "true"),
    "a rate of zero": ("CLIPTIDE_QUERY_API__RATE_PER_SECOND", "0"),
    "an endless time": ("CLIPTIDE_QUERY_API__SCRUB_HOURS", "inf"),
    "an empty index root": ("CLIPTIDE_INDEX__ROOT", ""),
    "an empty root after its scheme": ("CLIPTIDE_INDEX__ROOT", "file://"),
    "an empty directory of copies": ("CLIPTIDE_INDEX__CACHE_DIR", " "),
    "an empty directory of contents": ("CLIPTIDE_QUERY_API__LARGE_CONTENTS_DIRECTORY", ""),
    "an index id that is a path": ("CLIPTIDE_INDEX__ID", "../main"),
    "an empty index id": ("CLIPTIDE_INDEX__ID", ""),
    "a topic that is a path": ("CLIPTIDE_TOPIC", "shop/uploads"),
    "a section that is no JSON": ("CLIPTIDE_QUERY_API", "{port"),
}


@pytest.mark.parametrize(("variable", "value"), BAD.values(), ids=BAD)
def test_a_bad_setting_is_one_line_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings) as caught:
        read_settings()
    assert str(caught.value).startswith(f"{variable}: ")
    assert "\n" not in str(caught.value)


def test_without_an_environment_it_listens_on_loopback_and_serves_the_current_index() -> None:
    settings = read_settings()
    assert (settings.query_api.host, settings.query_api.port) == ("127.0.0.1", 8080)
    assert (settings.index.root, settings.index.id) == (Path("index"), None)
    assert settings.encoder.model == "ViT-B-32"


PERMITS = {
    "a key that reads": ("READ_KEYS", f'["{"0" * 64}"]'),
    "a key that writes": ("WRITE_KEYS", f'["{"0" * 64}"]'),
    "plain words": ("ALLOW_ANONYMOUS", "true"),
}


@pytest.mark.parametrize(("name", "value"), PERMITS.values(), ids=PERMITS)
def test_beyond_loopback_it_takes_a_key_or_plain_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("CLIPTIDE_QUERY_API__HOST", "0.0.0.0")
    monkeypatch.setenv(f"CLIPTIDE_QUERY_API__{name}", value)
    assert read_settings().query_api.host == "0.0.0.0"


def test_a_key_instead_of_its_digest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_QUERY_API__READ_KEYS", '["my secret key"]')
    with pytest.raises(BadSettings) as caught:
        read_settings()
    assert str(caught.value).startswith("CLIPTIDE_QUERY_API__READ_KEYS: must be digests, not keys")
    assert "my secret key" not in str(caught.value)


def test_every_setting_is_described() -> None:
    for section in (QueryApiSettings, IndexSettings, KafkaSection):
        for name, field in section.model_fields.items():
            assert field.description, name


def test_variables_of_other_services_are_none_of_its_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_CONSUMER__ANYTHING", "1")
    monkeypatch.setenv("CLIPTIDE_INDEX__ID", "main")
    monkeypatch.setenv("CLIPTIDE_QUERY_API__PORT", "0")
    settings = read_settings()
    assert (settings.index.id, settings.query_api.port) == ("main", 0)


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CLIPTIDE_")]:
        monkeypatch.delenv(name)


def test_hosts_of_linked_pictures_are_a_list_of_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_QUERY_API__LINK_HOSTS", '["cdn.example", "*.pictures.example"]')
    assert read_settings().query_api.link_hosts == ("cdn.example", "*.pictures.example")
    monkeypatch.setenv("CLIPTIDE_QUERY_API__LINK_HOSTS", '["cdn.example; script-src *"]')
    with pytest.raises(BadSettings, match="CLIPTIDE_QUERY_API__LINK_HOSTS"):
        read_settings()
