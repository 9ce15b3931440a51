"""Settings from the environment, and one line about the first variable that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

PREFIX = "CLIPTIDE_"
MISSPELT_SIMILARITY = 0.8  # one letter wrong in five; no names of two services are as near

# Kubernetes tells a pod of each Service by such variables: CLIPTIDE_QUERY_API_PORT=tcp://10.0.0.11:8080
_SERVICE_LINKS = ("tcp://", "udp://", "sctp://")


class BadSettings(Exception):
    """The environment cannot be used; the message is one line that names the variable."""


class Section(BaseModel):
    """Some settings of a service: `CLIPTIDE_<SECTION>__<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EnvironmentSettings(BaseSettings):
    """All that a service reads from its environment: sections, and `CLIPTIDE_<NAME>` of its own."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )


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
    """Refuse a variable that looks like a setting and is none, in whose place the default would be taken.

    Inside a section every unknown name is refused anyway. Elsewhere other services and commands have
    their variables: refused is a section or a name that is nearly one of this service's, or a
    setting with one underscore for two.
    """
    known = list(variables_of(settings))
    sections = {_first_part(name) for name in known if "__" in name}
    for variable, value in sorted(os.environ.items()):
        is_ours = variable in known or _first_part(variable) in sections
        if is_ours or not variable.startswith(PREFIX) or not value or value.startswith(_SERVICE_LINKS):
            continue
        if (meant := _meant(variable, known)) is not None:
            raise BadSettings(f"{variable}: there is no such setting; did you mean {meant}?")


def _meant(variable: str, known: Sequence[str]) -> str | None:
    """The setting, or its section, that a variable outside of this service's sections is nearly."""
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
    first = error.errors(include_url=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if message.startswith(PREFIX):
        return message  # raised by a part that knows its own variables
    variable = _variable(first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        message = f"there is no such setting{_suggestion(variable, settings)}"
    return f"{variable}: {message}"


def _suggestion(variable: str, settings: type) -> str:
    near = get_close_matches(variable, variables_of(settings), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def variables_of(settings: type, section: tuple[str, ...] = ()) -> Iterator[str]:
    """Every variable that these settings are read from."""
    for name, kind in get_type_hints(settings).items():
        if isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind)):
            yield from variables_of(kind, (*section, name))
        elif name != "model_config":
            yield _name((*section, name))


def _variable(location: tuple[int | str, ...]) -> str:
    """The variable that holds the location; what lies inside its JSON is not part of its name."""
    for length in range(len(location), 0, -1):
        name = _name(location[:length])
        if name in os.environ:
            return name
    return _name(location)


def _name(location: tuple[int | str, ...]) -> str:
    return PREFIX + "__".join(str(part) for part in location).upper()


def _unparsable_variable(error: SettingsError) -> str:
    """pydantic-settings names the section alone, but its cause holds the text it could not parse."""
    text = getattr(error.__cause__, "doc", None)
    names = [name for name, value in os.environ.items() if name.startswith(PREFIX) and value == text]
    return names[0] if names else f"{PREFIX}*"
