"""One line about the first variable that cannot be used, whichever service reads it."""

from __future__ import annotations

import pytest
from pydantic import Field

from service.settings import BadSettings, EnvironmentSettings, Section, read_environment


class Shop(Section):
    hats: dict[str, int] = Field(default_factory=dict)
    doors: int = 1


class Town(EnvironmentSettings):
    name: str = "here"
    shop: Shop = Shop()


def test_sections_and_names_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_NAME", "there")
    monkeypatch.setenv("CLIPTIDE_SHOP__HATS", '{"red": 2}')
    assert read_environment(Town) == Town(name="there", shop=Shop(hats={"red": 2}))


BAD = {
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


def test_a_misspelt_setting_is_told_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_SHOP__DOOR", "3")
    with pytest.raises(BadSettings) as refused:
        read_environment(Town)
    assert str(refused.value) == (
        "CLIPTIDE_SHOP__DOOR: there is no such setting; did you mean CLIPTIDE_SHOP__DOORS?"
    )
