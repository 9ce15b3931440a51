"""Opens buckets through obstore, which finds credentials where the clouds' own tools keep them."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TypeAlias

from obstore.store import AzureStore, GCSStore, S3Store, from_url

Bucket: TypeAlias = AzureStore | GCSStore | S3Store
_ENDPOINT_VARIABLE = re.compile(
    r"AWS_ENDPOINT(_URL(_S3)?)?|GOOGLE_(BASE_URL|ENDPOINT)|AZURE_(STORAGE_)?ENDPOINT"
)


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


def open_public_bucket(url: str) -> S3Store:
    """Open an `s3://` bucket to which no credentials belong, so that addresses can be made of its objects.

    The credentials are made up, because obstore would look for real ones. Leave out the signature.
    """
    bucket: S3Store = S3Store.from_url(
        url,
        access_key_id="none",
        secret_access_key="none",
        client_options={"allow_http": _has_plain_endpoint()},
    )
    return bucket


def _has_plain_endpoint() -> bool:
    """Whether the operator has named an endpoint without TLS, in one of the variables that obstore reads."""
    return any(
        value.lower().startswith("http://")
        for name, value in os.environ.items()
        if _ENDPOINT_VARIABLE.fullmatch(name.upper())
    )
