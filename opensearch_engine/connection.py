"""The one door to OpenSearch's client, which is imported when an index in OpenSearch is used.

The client's errors become those of `opensearch_engine.errors`. A message names the address, what
OpenSearch answered and what to do. It never holds a part of a document.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import quote

from opensearch_engine.errors import EngineConflict, EngineMissing, EngineRefused, EngineUnavailable

if TYPE_CHECKING:
    from opensearchpy import OpenSearch
    from opensearchpy.exceptions import TransportError

Json: TypeAlias = dict[str, Any]
KnnEngine: TypeAlias = Literal["faiss", "lucene"]

_MAX_CONNECTIONS = 32
_MAX_REASON = 200
_STOPPED_FOR_A_WHILE = (
    "cluster_block_exception",  # a full disk, for example
    "index_closed_exception",  # the restore of a snapshot, for example
)
_WAY_ON_CREDENTIALS = (
    "check CLIPTIDE_OPENSEARCH__USER and CLIPTIDE_OPENSEARCH__PASSWORD, or the AWS credentials and "
    "CLIPTIDE_OPENSEARCH__AWS_REGION, and what that user may do"
)


@dataclass(frozen=True, slots=True)
class OpenSearchSettings:
    """How to reach OpenSearch, and what a new index is created with.

    `url` may name several nodes, separated by commas. With an `aws_region`, requests are signed (SigV4).
    """

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    aws_region: str | None = None
    aws_service: str = "es"
    timeout_seconds: float = 10.0
    knn_engine: KnnEngine = "faiss"
    num_shards: int = 1
    num_replicas: int = 1

    @property
    def urls(self) -> list[str]:
        return [url.strip() for url in self.url.split(",") if url.strip()]


class Connection:
    """Asks OpenSearch. Thread-safe, blocking."""

    def __init__(self, settings: OpenSearchSettings) -> None:
        """Ask nothing yet. Raises `EngineRefused` if the client or its credentials are missing."""
        self.settings = settings
        self._client = _open_client(settings)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        **params: object,
    ) -> Json:
        """Return the answer, decoded. Raises the errors of `opensearch_engine.errors`."""
        from opensearchpy.exceptions import OpenSearchException, TransportError

        try:
            answer = self._client.transport.perform_request(
                method, path, params={name: _parameter(value) for name, value in params.items()}, body=body
            )
        except TransportError as error:
            raise self._translated(error) from error
        except (OpenSearchException, AttributeError) as error:  # the client looks for `error` in any JSON
            raise EngineUnavailable(f"OpenSearch at {self.settings.url} answers something else") from error
        return answer if isinstance(answer, dict) else {}

    def ask_lines(self, path: str, lines: Iterable[object], **params: object) -> Json:
        """Send one JSON object a line, as `_bulk` and `_msearch` want it."""
        body = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
        return self.ask("POST", path, body, **params)

    def read_document(self, index: str, document_id: str) -> Json | None:
        """Return a document with its `_source`, `_seq_no` and `_primary_term`; None if there is none."""
        try:
            return self.ask("GET", f"/{index}/_doc/{quote(document_id, safe='')}", realtime=True)
        except EngineMissing:
            return None

    def read_documents(self, index: str, ids: Sequence[str], **params: object) -> list[Json]:
        """Return the documents of these ids, None-like entries (`found` is false) included, in this order.

        Documents are read as they are stored, even if no refresh has made them searchable yet.
        """
        if not ids:
            return []
        answer = self.ask("POST", f"/{index}/_mget", {"ids": list(ids)}, realtime=True, **params)
        documents: list[Json] = answer["docs"]
        for document in documents:
            if "error" in document:  # not an absent document: its shard does not answer
                is_gone = document["error"].get("type") == "index_not_found_exception"
                raise self.error_of_part(
                    "a document cannot be read", 404 if is_gone else 503, document["error"]
                )
        return documents

    def error_of_part(self, what: str, status: int, error: Mapping[str, Any]) -> Exception:
        """Return the error for a part of an answer that has failed."""
        message = f"OpenSearch at {self.settings.url}: {what} ({status}): {_reason(error)}"
        if status == 429 or status >= 500 or _passes(message):
            return EngineUnavailable(message)
        return EngineMissing(message) if status == 404 else EngineRefused(message)

    def close(self) -> None:
        self._client.close()

    def _translated(self, error: TransportError) -> Exception:
        from opensearchpy.exceptions import ConnectionError as NoAnswer
        from opensearchpy.exceptions import SSLError

        url, status = self.settings.url, error.status_code
        if isinstance(error, SSLError):
            return EngineRefused(
                f"OpenSearch at {url}: its certificate is not accepted: {error.error[:_MAX_REASON]}; "
                "CLIPTIDE_OPENSEARCH__CA_FILE names the authorities that sign it"
            )
        if isinstance(error, NoAnswer):
            return EngineUnavailable(f"OpenSearch at {url} does not answer: {_cause(error)}")
        reason = _reason(error.info.get("error", {}) if isinstance(error.info, dict) else error.error)
        if status == 404:
            return EngineMissing(f"OpenSearch at {url} has no such thing: {reason}")
        if status == 409:
            return EngineConflict(f"OpenSearch at {url}: {reason}")
        if _passes(reason) or status == 429 or (isinstance(status, int) and status >= 500):
            return EngineUnavailable(f"OpenSearch at {url} cannot do this now ({status}): {reason}")
        if status in (401, 403):
            return EngineRefused(
                f"OpenSearch at {url} refuses the credentials ({status}): {_WAY_ON_CREDENTIALS}"
            )
        return EngineRefused(f"OpenSearch at {url} refuses a request ({status}): {reason}")


def _passes(reason: str) -> bool:
    """Whether an operator, or OpenSearch itself, has stopped the index for a while."""
    return any(kind in reason for kind in _STOPPED_FOR_A_WHILE)


def _parameter(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _cause(error: TransportError) -> str:
    """The innermost cause, without the objects of the client that stand around it."""
    text = error.error if isinstance(error.error, str) else type(error).__name__
    return text.rpartition(">: ")[2][:_MAX_REASON] or type(error).__name__


def _reason(error: object) -> str:
    """Type and reason of an error, without the part of a document that OpenSearch may show in it."""
    if not isinstance(error, Mapping):
        return str(error)[:_MAX_REASON]
    causes = error.get("root_cause") or [error]
    reason = str(causes[0].get("reason", "")).partition("Preview of field")[0]
    return f"{causes[0].get('type', 'error')}: {reason[:_MAX_REASON].strip()}"


def _open_client(settings: OpenSearchSettings) -> OpenSearch:
    try:
        from opensearchpy import OpenSearch
    except ImportError as error:
        raise EngineRefused(
            "CLIPTIDE_INDEX__ENGINE=opensearch needs OpenSearch's client: pip install 'cliptide[opensearch]'"
        ) from error
    logging.getLogger("opensearch").setLevel(logging.CRITICAL)  # errors are raised, and logged by who waits
    options: dict[str, Any] = {"ca_certs": str(settings.ca_file)} if settings.ca_file else {}
    if settings.aws_region is not None:
        options["http_auth"] = _signature(settings)
    elif settings.user is not None:
        options["http_auth"] = (settings.user, settings.password or "")
    return OpenSearch(
        settings.urls,
        timeout=settings.timeout_seconds,
        pool_maxsize=_MAX_CONNECTIONS,
        http_compress=False,
        **options,
    )


def _signature(settings: OpenSearchSettings) -> object:
    """Sign requests with the credentials that AWS's tools find: environment, profile, role."""
    try:
        from botocore.session import Session
    except ImportError as error:
        raise EngineRefused(
            "CLIPTIDE_OPENSEARCH__AWS_REGION needs botocore: pip install 'cliptide[opensearch]'"
        ) from error
    from opensearchpy import Urllib3AWSV4SignerAuth

    credentials = Session().get_credentials()
    if credentials is None:
        raise EngineRefused(
            "CLIPTIDE_OPENSEARCH__AWS_REGION is set, but there are no AWS credentials: set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, or give this machine a role"
        )
    return Urllib3AWSV4SignerAuth(credentials, settings.aws_region, settings.aws_service)
