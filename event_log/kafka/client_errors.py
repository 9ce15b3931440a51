"""What a Kafka client reports about its connections, in addition to the errors of single requests.

A request that finds no connection only times out. The reason is in these reports: a refused
connection, a wrong password, a certificate, another protocol.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from confluent_kafka import KafkaError

from event_log.errors import FatalLogError, TransientLogError

PROPERTIES_VARIABLE = "CLIPTIDE_KAFKA__PROPERTIES"

_AT_ONCE = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
_WHEN_REPEATED = frozenset(
    {
        KafkaError._BAD_MSG,  # the answer is not Kafka's: HTTP, or TLS without our knowing
        KafkaError._SSL,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)
_DISCONNECTED = "PLAINTEXT broker listener"  # how librdkafka calls a TLS handshake that a broker breaks off
_HINTS = (_DISCONNECTED, "security.protocol", "in state UP)")
"""Parts of what librdkafka reports when a broker closes a connection that it does not want to serve."""
_MIN_REFUSALS = 3  # a broker that is being stopped breaks off a handshake or two
_MIN_SECONDS_STANDING = 10.0  # while requests fail, and no other error is reported
_MIN_SECONDS, _MIN_SECONDS_OF_HINTS = 1.0, 5.0  # a broker that is starting may only close connections


class ClientErrors:
    """Remembers what one client has reported. `report` is its `error_cb`. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._latest = ""
        self._standing: KafkaError | None = None
        self._refused_since: float | None = None
        self._num_refusals = 0
        self._refusal: FatalLogError | None = None
        self._was_served = False

    @property
    def refusal(self) -> FatalLogError | None:
        """Why every broker that answers refuses this client, until one of them has served it."""
        return self._refusal

    def report(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            return  # it only counts the brokers of which the other reports tell
        with self._lock:
            self._latest, self._standing = error.str(), None
            if error.fatal():
                self._refusal = FatalLogError(f"{error.name()}: {error.str()}")
            elif error.code() in _AT_ONCE or self._is_repeated_refusal(error):
                self._refusal = _refused(error)

    def served(self) -> None:
        """A broker has answered a request, so the properties are right."""
        with self._lock:
            self._was_served = True  # what breaks connections from now on is not the properties
            self._latest, self._standing = "", None
            self._refused_since, self._num_refusals, self._refusal = None, 0, None

    def raise_refusal(self) -> None:
        """Raise why the client is refused, if that is certain. Called after a request has failed."""
        with self._lock:
            standing = self._standing
            if self._refusal is None and standing is not None and self._has_stood_for_long():
                self._refusal = _refused(standing)
        if (refusal := self._refusal) is not None:
            raise refusal

    def explained(self, error: TransientLogError) -> TransientLogError:
        """The error of a request, together with the reason that its connection gives."""
        return TransientLogError(f"{error} (connection: {self._latest})") if self._latest else error

    def _is_repeated_refusal(self, error: KafkaError) -> bool:
        is_certain = error.code() in _WHEN_REPEATED and _DISCONNECTED not in error.str()
        if self._was_served or not (is_certain or any(hint in error.str() for hint in _HINTS)):
            return False
        now = self._clock()
        self._standing = error
        if self._refused_since is None:
            self._refused_since = now
        self._num_refusals += 1
        min_seconds = _MIN_SECONDS if is_certain else _MIN_SECONDS_OF_HINTS
        return self._num_refusals >= _MIN_REFUSALS and now - self._refused_since >= min_seconds

    def _has_stood_for_long(self) -> bool:
        """librdkafka reports an error that repeats in the same words only twice a minute."""
        since = self._refused_since
        return since is not None and self._clock() - since >= _MIN_SECONDS_STANDING


def _refused(error: KafkaError) -> FatalLogError:
    return FatalLogError(
        f"Kafka refuses this client: {error.name()}: {error.str()}: check security.protocol, sasl.* and "
        f"ssl.* in {PROPERTIES_VARIABLE}, and the addresses"
    )
