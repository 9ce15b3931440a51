"""One line about the first variable that cannot be used, whichever service reads it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import Field

from service.environment import BadSettings, EnvironmentSettings, Section, read_environment


class Shop(Section):
    hats: dict[str, int] = Field(default_factory=dict)
    doors: int = 1
    floors: int = Field(default=2, le=3)
    share: float = 0.5
    is_open: bool = True


@dataclass(frozen=True)
class Lamps:
    number: int = 4


@dataclass(frozen=True)
class Square:
    trees: int = 3
    lamps: Lamps = Lamps()


class Harbour(Section):
    host: str = "localhost"
    port: int = 80


class Town(EnvironmentSettings):
    harbour: Harbour = Harbour()
    name: str = "here"
    square: Square = Square()
    shop: Shop = Shop()


def test_sections_and_names_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_NAME", "there")
    monkeypatch.setenv("CLIPTIDE_SHOP__HATS", '{"red": 2}')
    assert read_environment(Town) == Town(name="there", shop=Shop(hats={"red": 2}))


@pytest.mark.parametrize("level", ["debug", "DEBUG"])
def test_the_level_of_the_log_is_a_setting_of_every_service(
    monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setenv("CLIPTIDE_LOG__LEVEL", level)
    assert read_environment(Town).log.level == "debug"


@pytest.mark.parametrize("form", ["json", "CONSOLE", "auto"])
def test_the_form_of_the_log_is_a_setting_of_every_service(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("CLIPTIDE_LOG__FORMAT", form)
    assert read_environment(Town).log.format == form.lower()


BAD = {
    "a level that is none": ("CLIPTIDE_LOG__LEVEL", "loud"),
    "a form that is none": ("CLIPTIDE_LOG__FORMAT", "xml"),
    "a word for a number": ("CLIPTIDE_SHOP__DOORS", "two"),
    "something inside its JSON": ("CLIPTIDE_SHOP__HATS", '{"red": "many"}'),
    "no JSON": ("CLIPTIDE_SHOP__HATS", "red=2"),
    "a section that is no JSON": ("CLIPTIDE_SHOP", "{doors"),
    "a name that is not known": ("CLIPTIDE_SHOP__WINDOWS", "3"),
}


@pytest.mark.parametrize(("variable", "value"), BAD.values(), ids=BAD)
def test_the_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings, match=f"^{variable}: [^\n]+$"):
        read_environment(Town)


WORDS = {
    "a word for a number": ("CLIPTIDE_SHOP__DOORS", "two", "must be a whole number"),
    "a fraction for a whole number": ("CLIPTIDE_SHOP__DOORS", "1.5", "must be a whole number"),
    "a number that is too large": ("CLIPTIDE_SHOP__FLOORS", "9", "must be at most 3"),
    "a word for a fraction": ("CLIPTIDE_SHOP__SHARE", "half", "must be a number"),
    "infinity": ("CLIPTIDE_SHOP__SHARE", "inf", "must be a finite number"),
    "what is not a number": ("CLIPTIDE_SHOP__SHARE", "nan", "must be a finite number"),
    "a number for a boolean": ("CLIPTIDE_SHOP__IS_OPEN", "5", "must be true or false"),
    "another level": ("CLIPTIDE_LOG__LEVEL", "loud", "must be debug, info, warning or error"),
    "something inside its JSON": ("CLIPTIDE_SHOP__HATS", '{"red": "many"}', "must be a whole number"),
}


@pytest.mark.parametrize(("variable", "value", "words"), WORDS.values(), ids=WORDS)
def test_a_wrong_value_is_told_in_the_words_of_an_operator(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings) as refused:
        read_environment(Town)
    assert str(refused.value) == f"{variable}: {words}"


MISSPELT = {
    "the former name of a setting": ("CLIPTIDE_LOG_LEVEL", "CLIPTIDE_LOG__LEVEL"),
    "a setting": ("CLIPTIDE_SHOP__DOOR", "CLIPTIDE_SHOP__DOORS"),
    "a setting of a dataclass": ("CLIPTIDE_SQUARE__TREE", "CLIPTIDE_SQUARE__TREES"),
    "a section": ("CLIPTIDE_SHOPS__DOORS", "CLIPTIDE_SHOP__DOORS"),
    "a section, with a name that is unlike any": ("CLIPTIDE_SHOPS__WINDOWS", "CLIPTIDE_SHOP__…"),
    "one underscore": ("CLIPTIDE_SHOP_DOORS", "CLIPTIDE_SHOP__DOORS"),
    "one underscore of several": ("CLIPTIDE_SQUARE_LAMPS__NUMBER", "CLIPTIDE_SQUARE__LAMPS__NUMBER"),
    "a name outside sections": ("CLIPTIDE_NAMES", "CLIPTIDE_NAME"),
}


@pytest.mark.parametrize(("variable", "meant"), MISSPELT.values(), ids=MISSPELT)
def test_a_misspelt_setting_is_told_its_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "3")
    with pytest.raises(BadSettings) as refused:
        read_environment(Town)
    assert str(refused.value) == f"{variable}: there is no such setting; did you mean {meant}?"


def test_what_is_like_no_setting_is_someone_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CLIPTIDE_MARKET__STALLS", "CLIPTIDE_SHOPPING", "CLIPTIDE_", "MYCLIPTIDE_NAMES"):
        monkeypatch.setenv(variable, "3")
    monkeypatch.setenv("CLIPTIDE_SHOP_DOORS", "")
    assert read_environment(Town) == Town()


def test_what_kubernetes_tells_of_services_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the service links of a Service called cliptide-harbour, as Kubernetes does by default."""
    for name, value in {
        "SERVICE_HOST": "10.0.0.11",
        "SERVICE_PORT": "6379",
        "PORT": "tcp://10.0.0.11:6379",
        "PORT_6379_TCP": "tcp://10.0.0.11:6379",
        "PORT_6379_TCP_PROTO": "tcp",
        "PORT_6379_TCP_PORT": "6379",
        "PORT_6379_TCP_ADDR": "10.0.0.11",
    }.items():
        monkeypatch.setenv(f"CLIPTIDE_HARBOUR_{name}", value)
    assert read_environment(Town) == Town()
    monkeypatch.setenv("CLIPTIDE_HARBOUR_PORT", "6379")
    with pytest.raises(BadSettings, match="did you mean CLIPTIDE_HARBOUR__PORT"):
        read_environment(Town)


def test_a_section_and_what_lies_inside_a_setting_are_no_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_SHOP", '{"doors": 2}')
    monkeypatch.setenv("CLIPTIDE_SHOP__HATS__RED", "4")
    assert read_environment(Town).shop == Shop(doors=2, hats={"red": 4})
