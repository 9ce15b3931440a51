"""The schema of the Helm chart's values. Its settings are those of the code, so a misspelt one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import consumer.settings
import query_api.settings
from service.environment import PREFIX
from tools.settings_table import variables_of

_ALERTS = Path(__file__).parent.parent / "deploy" / "prometheus" / "alerts.yml"
_TEXT = {"type": "string"}
_NAME = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 1}
_MAP = {"type": "object"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_LIST = {"type": "array", "items": {"type": "object"}}
_FLAG = {"type": "boolean"}
_SETTING = {"type": ["string", "number", "boolean", "array", "object", "null"]}


def _closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _settings() -> dict[str, Any]:
    modules = (consumer.settings, query_api.settings)
    names = {name for module in modules for name, *_ in variables_of(module.Settings, PREFIX)}
    return _closed(**dict.fromkeys(sorted(names), _SETTING))


def _workload(**more: Any) -> dict[str, Any]:
    return _closed(
        replicas={"type": "integer", "minimum": 0},
        resources=_closed(requests=_MAP, limits=_MAP),
        extraEnv=_LIST,
        extraEnvFrom=_LIST,
        serviceAccountAnnotations=_TEXTS,
        podAnnotations=_TEXTS,
        nodeSelector=_TEXTS,
        tolerations=_LIST,
        affinity=_MAP,
        **more,
    )


def build_schema() -> str:
    image = _closed(
        repository=_NAME, tag=_TEXT, digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
    )
    claim = {"existingClaim": _TEXT, "storageClassName": _TEXT, "size": _NAME}
    schema = _closed(
        nameOverride=_TEXT,
        images=_closed(
            consumer=image,
            queryApi=image,
            pullPolicy={"enum": ["", "Always", "IfNotPresent", "Never"]},
            pullSecrets=_LIST,
        ),
        settings=_settings(),
        kafkaProperties={
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
        consumer=_workload(),
        queryApi=_workload(keysSecret=_NAME),
        persistence=_closed(index=_closed(enabled=_FLAG, **claim), weights=_closed(**claim)),
        ingress=_closed(enabled=_FLAG, className=_TEXT, annotations=_TEXTS, host=_TEXT, tlsSecret=_TEXT),
        networkPolicies=_closed(enabled=_FLAG, monitoringNamespace=_NAME, extraEgress=_LIST),
        strimzi=_closed(
            enabled=_FLAG,
            cluster=_NAME,
            caSecret=_NAME,
            partitions=_COUNT,
            replicas=_COUNT,
            minInsyncReplicas=_COUNT,
        ),
        keda=_closed(
            enabled=_FLAG,
            minReplicas=_COUNT,
            maxReplicas={"type": ["integer", "null"], "minimum": 1},
            lagThreshold=_COUNT,
            authentication=_TEXT,
        ),
        prometheus=_closed(serviceMonitor=_FLAG, rules=_FLAG, labels=_TEXTS),
    )
    schema["properties"]["global"] = _MAP  # Helm adds it where the chart is a part of another
    return json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **schema}, indent=1)


def read_alerts() -> str:
    """Return the alerts of Prometheus, because a chart can read only files that it holds."""
    return _ALERTS.read_text().rstrip()
