"""The client of a schema registry: what it fetches, and how each failure is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509  # comes with the client of schema registries
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from event_log.errors import RegistryMisconfigured, RegistryRefused, RegistryUnavailable
from event_log.schema_registry.client import FetchedSchema, RegistryClient
from event_log.schema_registry.settings import RegistrySettings
from tests.fixtures.registries import ToldRegistry
from tests.registry.apicurio import Apicurio

SCHEMA = {"type": "record", "name": "A", "fields": [{"name": "b", "type": "string"}]}
UNAUTHORISED = (401, {"error_code": 401, "message": "User cannot access the resource."})


Open = Callable[..., RegistryClient]


@pytest.fixture
def client() -> Iterator[Open]:
    """Return a function that opens a client, which is closed at the end."""
    with ExitStack() as stack:

        def opened(url: str, **others: object) -> RegistryClient:
            settings = RegistrySettings(url, **{"timeout_seconds": 5.0, **others})  # type: ignore[arg-type]
            return stack.enter_context(closing(RegistryClient(settings)))

        yield opened


def test_a_schema_comes_with_those_that_it_names_the_inner_ones_first(
    client: Open, told_registry: ToldRegistry
) -> None:
    def reference(subject: str) -> dict[str, object]:
        return {"name": subject, "subject": subject, "version": 1}

    told_registry.answers |= {
        "/schemas/ids/7": (200, {"schema": '"C"', "references": [reference("b"), reference("a")]}),
        "/subjects/b/versions/1": (
            200,
            {"subject": "b", "id": 2, "version": 1, "schema": '"B"', "references": [reference("a")]},
        ),
        "/subjects/a/versions/1": (200, {"subject": "a", "id": 1, "version": 1, "schema": '"A"'}),
    }
    assert client(told_registry.url).fetch(7) == FetchedSchema("AVRO", '"C"', ('"A"', '"B"'))


def test_a_schema_that_the_registry_does_not_have_is_none(client: Open, told_registry: ToldRegistry) -> None:
    assert client(told_registry.url).fetch(99) is None
    assert client(told_registry.url).fetch(UUID(int=1)) is None


def test_a_404_of_something_else_than_a_registry_is_no_missing_schema(
    client: Open, told_registry: ToldRegistry
) -> None:
    told_registry.answers["*"] = (404, b"<html>nothing here</html>")
    with pytest.raises(RegistryMisconfigured, match="not the address of a schema registry"):
        client(told_registry.url).fetch(99)
    with pytest.raises(RegistryMisconfigured, match="/apis/ccompat/v7"):
        client(told_registry.url).check()


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_named_with_their_settings(
    client: Open, told_registry: ToldRegistry, status: int
) -> None:
    told_registry.answers["/schemas/ids/7"] = (status, UNAUTHORISED[1])
    with pytest.raises(RegistryRefused, match=f"{status}.*CLIPTIDE_SCHEMA_REGISTRY__USER"):
        client(told_registry.url, user="us", password="wrong-password").fetch(7)


def test_who_may_read_schemas_and_not_the_configuration_may_start(
    client: Open, told_registry: ToldRegistry
) -> None:
    told_registry.answers["/config"] = (403, UNAUTHORISED[1])
    client(told_registry.url).check()
    told_registry.answers["/config"] = UNAUTHORISED
    with pytest.raises(RegistryRefused):
        client(told_registry.url).check()


@pytest.mark.parametrize(
    "answer", [(500, {"error_code": 50001, "message": "down"}), (200, b"<html>"), (429, b""), (200, {})]
)
def test_what_may_be_over_later_is_waited_for(
    client: Open, told_registry: ToldRegistry, answer: tuple[int, object]
) -> None:
    told_registry.answers["/schemas/ids/7"] = answer
    with pytest.raises(RegistryUnavailable) as caught:
        client(told_registry.url).fetch(7)
    assert not isinstance(caught.value, RegistryRefused)


def test_a_registry_that_is_away_is_named_without_its_password(client: Open) -> None:
    with pytest.raises(RegistryUnavailable, match=r"http://127\.0\.0\.1:9 does not answer") as caught:
        client("http://us:secret@127.0.0.1:9").fetch(7)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(RegistrySettings("x", user="us", password="secret", token="secret"))


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        ({"user": "us", "password": "p:w"}, "Basic dXM6cDp3"),
        ({"token": "abc"}, "Bearer abc"),
        ({}, None),
    ],
    ids=["basic", "bearer", "none"],
)
def test_credentials_are_sent(
    client: Open, told_registry: ToldRegistry, credentials: dict[str, str], header: str | None
) -> None:
    told_registry.answers["/schemas/ids/7"] = (200, {"schema": '"string"'})
    client(told_registry.url, **credentials).fetch(7)
    assert told_registry.authorizations == [header]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that signs itself, in one file with its private key."""
    path = tmp_path_factory.mktemp("tls") / "registry.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    built = (
        builder.not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(encoded_key + built.public_bytes(Encoding.PEM))
    return path


def test_a_registry_is_trusted_by_the_ca_file_and_not_without_it(client: Open, certificate: Path) -> None:
    with closing(ToldRegistry(certificate)) as registry:
        assert registry.url.startswith("https://")
        client(registry.url, ca_file=certificate).check()
        with pytest.raises(RegistryUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            client(registry.url).check()


def test_a_file_that_holds_no_authority_is_refused(client: Open, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(RegistryMisconfigured):
        client("https://127.0.0.1:9", ca_file=tmp_path / "ca.pem")


def test_the_mock_has_guids_and_keeps_what_is_registered(client: Open) -> None:
    mock = client("mock://registry")
    keys = mock.register("content-uploads-value", json.dumps(SCHEMA))
    assert keys.guid is not None
    assert mock.fetch(keys.number) == mock.fetch(keys.guid) == FetchedSchema("AVRO", json.dumps(SCHEMA))
    assert mock.fetch(UUID(int=7)) is None


def test_apicurio_has_what_is_registered_and_knows_no_guid(client: Open, apicurio: Apicurio) -> None:
    registry = client(apicurio.url)
    registry.check()
    keys = registry.register("content-uploads-value", json.dumps(SCHEMA))
    assert registry.register("content-uploads-value", json.dumps(SCHEMA)) == keys
    fetched = registry.fetch(keys.number)
    assert fetched is not None
    assert json.loads(fetched.text)["name"] == "A"
    assert registry.fetch(999_999) is None
    assert registry.fetch(UUID(int=7)) is None
