"""Settings are read from the environment; the first variable that cannot be used is named in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Annotated, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from service.logs import LogFormat
from service.value_errors import value_error

PREFIX = "CLIPTIDE_"
MISSPELT_SIMILARITY = 0.8  # one wrong letter in five; names of different services differ by more

# Kubernetes sets such a variable in every pod for each Service: CLIPTIDE_QUERY_API_PORT=tcp://10.0.0.11:8080
_SERVICE_LINKS = ("tcp://", "udp://", "sctp://")


class BadSettings(Exception):
    """A variable cannot be used; the message is one line that names it."""


class Section(BaseModel):
    """A group of settings: `CLIPTIDE_<SECTION>__<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


class LogSection(Section):
    """What a service writes to its log, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info",
        description="Log lines of this level and above are written: debug, info, warning or error.",
    )
    format: Annotated[LogFormat, BeforeValidator(_lower)] = Field(
        default="auto",
        description="The form of a log line: json (one object a line), console (for people), or auto, which "
        "is console at a terminal and json everywhere else.",
    )


class EnvironmentSettings(BaseSettings):
    """Everything that a service reads from its environment: its sections, and single `CLIPTIDE_<NAME>`s."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    log: LogSection = LogSection()


SettingsT = TypeVar("SettingsT", bound=EnvironmentSettings)


def read_environment(settings: type[SettingsT]) -> SettingsT:
    """Read the environment; `BadSettings` names the first variable that cannot be used."""
    try:
        _refuse_misspelt(settings)
        return settings()
    except ValidationError as error:
        raise BadSettings(_first_problem(error, settings)) from None
    except SettingsError as error:
        raise BadSettings(f"{_unparsable_variable(error)}: must be JSON") from None


def _refuse_misspelt(settings: type[BaseModel]) -> None:
    """Refuse a variable that is probably a misspelt setting, because its default would be used silently.

    Inside a section pydantic refuses every unknown name. Outside, other services and commands have
    variables of their own. So this refuses only a name or a section that is nearly one of this
    service's, and a setting that is written with one underscore instead of two.
    """
    known = list(variables_of(settings))
    sections = {_first_part(name) for name in known if "__" in name}
    for variable, value in sorted(os.environ.items()):
        is_ours = variable in known or _first_part(variable) in sections
        if is_ours or not variable.startswith(PREFIX) or not value or value.startswith(_SERVICE_LINKS):
            continue
        if (nearest := _nearest_setting(variable, known)) is not None:
            raise BadSettings(f"{variable}: there is no such setting; did you mean {nearest}?")


def _nearest_setting(variable: str, known: Sequence[str]) -> str | None:
    """Return the setting, or the section of a setting, that the variable probably means."""
    for name in known:
        if name.replace("__", "_") == variable.replace("__", "_"):
            return name
    is_nested = "__" in variable
    first_part = _first_part(variable)
    known_parts = {_first_part(name) for name in known if ("__" in name) == is_nested}
    near = get_close_matches(first_part, known_parts, n=1, cutoff=MISSPELT_SIMILARITY)
    if not near:
        return None
    spelt = PREFIX + near[0] + variable.removeprefix(PREFIX + first_part)
    section = [name for name in known if _first_part(name) == near[0]]
    return next(iter(get_close_matches(spelt, section, n=1, cutoff=0.9)), f"{PREFIX}{near[0]}__…")


def _first_part(variable: str) -> str:
    return variable.removeprefix(PREFIX).partition("__")[0]


def _first_problem(error: ValidationError, settings: type) -> str:
    first = error.errors(include_url=False)[0]
    message = value_error(first)
    if message.startswith(PREFIX):
        return message  # a validator has named the variable already
    variable = _variable(first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        message = f"there is no such setting{_suggestion(variable, settings)}"
    return f"{variable}: {message}"


def _suggestion(variable: str, settings: type) -> str:
    near = get_close_matches(variable, variables_of(settings), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def variables_of(settings: type, section: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield every variable that these settings are read from."""
    for name, kind in get_type_hints(settings).items():
        if isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind)):
            yield from variables_of(kind, (*section, name))
        elif name != "model_config":
            yield _name((*section, name))


def _variable(location: tuple[int | str, ...]) -> str:
    """Return the variable that holds the location, without the steps that lead into its JSON value."""
    for length in range(len(location), 0, -1):
        name = _name(location[:length])
        if name in os.environ:
            return name
    return _name(location)


def _name(location: tuple[int | str, ...]) -> str:
    return PREFIX + "__".join(str(part) for part in location).upper()


def _unparsable_variable(error: SettingsError) -> str:
    """Find the variable by its value.

    pydantic-settings names only the section; its cause holds the text that could not be parsed.
    """
    text = getattr(error.__cause__, "doc", None)
    names = [name for name, value in os.environ.items() if name.startswith(PREFIX) and value == text]
    return names[0] if names else f"{PREFIX}*"
