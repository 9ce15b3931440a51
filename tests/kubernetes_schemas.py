"""Schemas of the operators' own kinds, with the fields that deploy/kubernetes uses; any other is a mistake.

They are written by hand after the definitions of Strimzi (kafka.strimzi.io/v1), KEDA 2 (keda.sh/v1alpha1)
and the Prometheus operator (monitoring.coreos.com/v1), because no package of a registry has all of them.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 1}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}
DURATION: Schema = {"type": "string", "pattern": r"^\d+(ms|s|m|h|d)$"}


def closed(optional: Schema | None = None, **required: Schema) -> Schema:
    properties = {**required, **(optional or {})}
    return {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


def listed(of: Schema) -> Schema:
    return {"type": "array", "items": of, "minItems": 1}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def kind(version: str, spec: Schema) -> Schema:
    metadata = closed({"labels": LABELS}, name=TEXT, namespace=TEXT)
    return closed(apiVersion=one_of(version), kind=TEXT, metadata=metadata, spec=spec)


ACL = closed(
    resource=closed(type=one_of("topic", "group"), name=TEXT, patternType=one_of("literal", "prefix")),
    operations=listed(
        one_of(
            "Read", "Write", "Describe", "Create", "Delete", "Alter", "DescribeConfigs", "AlterConfigs", "All"
        )
    ),
)
KAFKA_TRIGGER = closed(
    {"offsetResetPolicy": one_of("latest", "earliest"), "tls": one_of("enable", "disable")}
    | {name: one_of("true", "false") for name in ("allowIdleConsumers", "scaleToZeroOnInvalidOffset")},
    bootstrapServers=TEXT,
    consumerGroup=TEXT,
    topic=TEXT,
    lagThreshold={"type": "string", "pattern": r"^\d+$"},
)
SCALE_DOWN = closed(
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
    policies=listed(closed(type=one_of("Pods", "Percent"), value=COUNT, periodSeconds=COUNT)),
)
RULE = closed({"for": DURATION}, alert=TEXT, expr=TEXT, labels=LABELS, annotations=LABELS)
CUSTOM: dict[str, Schema] = {
    "KafkaTopic": kind(
        "kafka.strimzi.io/v1",
        closed(
            topicName=TEXT,
            partitions=COUNT,
            replicas=COUNT,
            config={"type": "object", "additionalProperties": {"type": ["string", "integer", "boolean"]}},
        ),
    ),
    "KafkaUser": kind(
        "kafka.strimzi.io/v1",
        closed(
            authentication=closed(type=one_of("tls", "tls-external", "scram-sha-512")),
            authorization=closed(type=one_of("simple"), acls=listed(ACL)),
        ),
    ),
    "ScaledObject": kind(
        "keda.sh/v1alpha1",
        closed(
            {"advanced": closed(horizontalPodAutoscalerConfig=closed(behavior=closed(scaleDown=SCALE_DOWN)))},
            scaleTargetRef=closed(apiVersion=TEXT, kind=TEXT, name=TEXT),
            minReplicaCount={"type": "integer", "minimum": 0},
            maxReplicaCount=COUNT,
            triggers=listed(
                closed(type=one_of("kafka"), metadata=KAFKA_TRIGGER, authenticationRef=closed(name=TEXT))
            ),
        ),
    ),
    "TriggerAuthentication": kind(
        "keda.sh/v1alpha1",
        closed(
            secretTargetRef=listed(closed(parameter=one_of("ca", "cert", "key"), name=TEXT, key=TEXT)),
        ),
    ),
    "ServiceMonitor": kind(
        "monitoring.coreos.com/v1",
        closed(
            jobLabel=TEXT,
            selector=closed(matchLabels=LABELS),
            endpoints=listed(closed(port=TEXT, path=TEXT, interval=DURATION)),
        ),
    ),
    "PrometheusRule": kind(
        "monitoring.coreos.com/v1", closed(groups=listed(closed(name=TEXT, rules=listed(RULE))))
    ),
}
