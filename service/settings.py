"""Settings from the environment, and one line about the first variable that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

PREFIX = "CLIPTIDE_"


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
        return settings()
    except ValidationError as error:
        raise BadSettings(_first_problem(error, settings)) from None
    except SettingsError as error:
        raise BadSettings(f"{_unparsable_variable(error)}: must be JSON") from None


def _first_problem(error: ValidationError, settings: type[BaseModel]) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if message.startswith(PREFIX):
        return message  # raised by a part that knows its own variables
    variable = _variable(first["loc"])
    if first["type"] == "extra_forbidden":
        message = f"there is no such setting{_suggestion(variable, settings)}"
    return f"{variable}: {message}"


def _suggestion(variable: str, settings: type[BaseModel]) -> str:
    near = get_close_matches(variable, variables_of(settings), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def variables_of(settings: type[BaseModel], section: tuple[str, ...] = ()) -> Iterator[str]:
    """Every variable that these settings are read from."""
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variables_of(field.annotation, (*section, name))
        else:
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
