"""A client of cliptide's query service, blocking and asynchronous. It needs httpx alone."""

from cliptide.client.asynchronous import AsyncClient
from cliptide.client.blocking import Client
from cliptide.client.errors import Busy, CliptideError, NotIndexed, NotInTime, Refused, Unreachable
from cliptide.client.values import (
    Acknowledgement,
    Answer,
    Because,
    DeletedByFilter,
    Hit,
    Outcome,
    Query,
    Upload,
)

__all__ = [
    "Acknowledgement",
    "Answer",
    "AsyncClient",
    "Because",
    "Busy",
    "Client",
    "CliptideError",
    "DeletedByFilter",
    "Hit",
    "NotInTime",
    "NotIndexed",
    "Outcome",
    "Query",
    "Refused",
    "Unreachable",
    "Upload",
]
