"""The settings sections that both services read, and the defaults that the command line shares with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from service.environment import Section
from service.host_names import is_host_name

DEFAULT_TOPIC = "content-uploads"
DEFAULT_DEAD_LETTER_TOPIC = "content-uploads.dead-letters"
DEFAULT_BOOTSTRAP_SERVERS = "127.0.0.1:9092"
DEFAULT_INDEX_ROOT = Path("index")


def _valid_host_name(text: str) -> str:
    if not is_host_name(text):
        raise ValueError("must be host names such as search.example.com, without https:// and without a port")
    return text


HostName = Annotated[str, AfterValidator(_valid_host_name)]


class KafkaSection(Section):
    """How to reach Kafka."""

    bootstrap_servers: str = Field(
        default=DEFAULT_BOOTSTRAP_SERVERS, description="Kafka's addresses: host:port, separated by commas."
    )
    properties: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="Further properties of librdkafka (SASL, TLS, …), as a JSON object.",
    )


class IndexSection(Section):
    """Where indexes lie. Each service adds `id`, which means something else to a writer than to a reader."""

    root: Path = Field(
        default=DEFAULT_INDEX_ROOT,
        description="The directory that holds the indexes. Consumers and query services share it.",
    )
