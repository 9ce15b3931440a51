"""Opens buckets through obstore, which finds credentials where the clouds' own tools keep them."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from obstore.store import AzureStore, GCSStore, S3Store, from_url

if TYPE_CHECKING:
    from obstore.store import ClientConfig

Bucket: TypeAlias = AzureStore | GCSStore | S3Store
_ENDPOINT_VARIABLE = re.compile(
    r"AWS_ENDPOINT(_URL(_S3)?)?|GOOGLE_(BASE_URL|ENDPOINT)|AZURE_(STORAGE_)?ENDPOINT"
)

_SKIP_VARIABLES = MappingProxyType(
    {"s3": "AWS_SKIP_SIGNATURE", "gs": "GOOGLE_SKIP_SIGNATURE", "az": "AZURE_SKIP_SIGNATURE"}
)
_YES = frozenset({"1", "true", "on", "yes", "y"})


def open_bucket(url: str, timeout_seconds: float) -> Bucket:
    """Open `s3://`, `gs://` or `az://`. Nothing is asked of it yet, and nothing is tried again.

    Plain HTTP is used only when an endpoint of the operator (`AWS_ENDPOINT_URL`) has that scheme, as for
    a store in a private network.
    """
    timeout = timedelta(seconds=timeout_seconds)
    bucket = from_url(
        url,
        client_options={
            "timeout": timeout,
            "connect_timeout": timeout,
            "allow_http": _has_plain_endpoint(),
        },
        retry_config={"max_retries": 0},
    )
    assert isinstance(bucket, AzureStore | GCSStore | S3Store)
    return bucket


def skips_signature(scheme: str) -> bool:
    """Whether the operator says that the buckets of a scheme are public: no credentials are looked for."""
    variable = _SKIP_VARIABLES[scheme]
    given = {name.upper(): value for name, value in os.environ.items()}
    return given.get(variable, "").lower() in _YES


def open_public_bucket(url: str) -> AzureStore | S3Store:
    """Open an `s3://` or `az://` bucket to which no credentials belong, to make addresses of its objects.

    The credentials are made up, because obstore would look for real ones. Leave out the signature.
    """
    options: ClientConfig = {"allow_http": _has_plain_endpoint()}
    if url.startswith("az://"):
        azure: AzureStore = AzureStore.from_url(
            url, client_options=options, account_key="bm9uZQ==", skip_signature=False
        )
        return azure
    s3: S3Store = S3Store.from_url(
        url, client_options=options, access_key_id="none", secret_access_key="none"
    )
    return s3


def public_google_address(bucket: str, key: str) -> str:
    """Return the address of an object in a `gs://` bucket to which no credentials belong."""
    given = {name.upper(): value for name, value in os.environ.items()}
    base = given.get("GOOGLE_BASE_URL") or given.get("GOOGLE_ENDPOINT") or "https://storage.googleapis.com"
    return f"{base.rstrip('/')}/{quote(bucket, safe='')}/{quote(key)}"


def _has_plain_endpoint() -> bool:
    """Whether the operator has named an endpoint without TLS, in one of the variables that obstore reads."""
    return any(
        value.lower().startswith("http://")
        for name, value in os.environ.items()
        if _ENDPOINT_VARIABLE.fullmatch(name.upper())
    )
