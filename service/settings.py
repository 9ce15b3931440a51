"""Settings from the environment, and one line about the first variable that cannot be used."""

from __future__ import annotations

import os
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
        raise BadSettings(_first_problem(error)) from None
    except SettingsError as error:
        raise BadSettings(f"{_unparsable_variable(error)}: must be JSON") from None


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if message.startswith(PREFIX):
        return message  # raised by a part that knows its own variables
    return f"{_variable(first['loc'])}: {message}"


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
