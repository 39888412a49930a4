"""Which secret may go where: a pair of name and place, by the process's environment and code alone."""

from __future__ import annotations

import dataclasses

import pytest

from pinnacle import AccountRefused, ConfigError, Model
from pinnacle.base.destinations import Destination, Grants, server_of, setting_for
from pinnacle.base.settings import Settings
from pinnacle.components.component import Origin, keep_secrets, loading
from pinnacle.components.consent import is_stored, may_run_code
from pinnacle.plugin import BaseLLMAPI


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch):
    for name in ("OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def allows(entries: str, name: str, url: str) -> bool:
    return Settings.from_environment({"PINNACLE_SECRETS": entries}).grants.allows(name, server_of(url))


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("K@gate.example.com", "https://gate.example.com/v1"),
        ("K@gate.example.com", "https://GATE.example.com.:8443/v1"),
        ("K@Gate.Example.com", "https://gate.example.com"),
        ("K@*.example.com", "https://a.b.example.com"),
        ("K@gate.example.com:8000", "http://gate.example.com:8000/v1"),
        ("K@localhost", "http://localhost:8000/v1"),
        ("K@127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("K@[::1]:8000", "http://[::1]:8000/v1"),
        ("X@elsewhere, K@10.0.0.1:80", "http://10.0.0.1"),
    ],
)  # fmt: skip
def test_a_secret_goes_where_the_process_says(entry, url):
    assert allows(entry, "K", url)
    assert not allows(entry, "OTHER", url)


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("K@gate.example.com", "http://gate.example.com"),
        ("K@gate.example.com", "https://evil.example.com"),
        ("K@gate.example.com", "https://gate.example.com.evil.com"),
        ("K@gate.example.com:8000", "https://gate.example.com"),
        ("K@*.example.com", "https://example.com"),
        ("K@*.example.com", "https://evilexample.com"),
        ("K@localhost:8000", "http://localhost:8001"),
        ("K@app.models:call", "https://app.models"),
    ],
)
def test_and_nowhere_else(entry, url):
    assert not allows(entry, "K", url)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.com\\.example.com", "https://evil.com\\@gate.example.com", "https://gate.exаmple.com",
        "https://gate.example.com:port", "ftp://gate.example.com", "https://", "https://gate .example.com",
        "https://evil.com\t.example.com", "gate.example.com",
    ],
)  # fmt: skip
def test_an_address_that_may_be_read_in_two_ways_is_none(url):
    with pytest.raises(ConfigError, match="an address is http"):
        server_of(url)


@pytest.mark.parametrize(
    "entry", ["sk-secret", "K", "K@", "@host", "K@*", "K@https://host", "K@ho st", "K@*.", "K@a/b"]
)
def test_an_entry_that_is_none_is_refused_and_not_told(entry):
    with pytest.raises(ConfigError, match="entry 2 of PINNACLE_SECRETS is not NAME@host") as refused:
        Settings.from_environment({"PINNACLE_SECRETS": f"A@b.example,{entry}"})
    assert "sk-secret" not in str(refused.value)


def test_settings_that_are_made_in_code_take_it_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("PINNACLE_SECRETS", "K@gate.example.com")
    place = server_of("https://gate.example.com")
    assert Settings(lease_ttl_s=5).grants.allows("K", place)
    assert not Settings(secrets=()).grants.allows("K", place)


@pytest.mark.parametrize(
    ("name", "url", "is_allowed"),
    [
        ("OPENAI_API_KEY", "https://api.openai.com/v1", True),
        ("OPENAI_API_KEY", "https://eu.api.openai.com/v1", True),
        ("OPENAI_API_KEY", "http://api.openai.com/v1", False),
        ("OPENAI_API_KEY", "https://api.openai.com:8443/v1", False),
        ("OPENAI_API_KEY", "https://openrouter.ai/api/v1", False),
        ("OPENROUTER_API_KEY", "https://openrouter.ai/api/v1", True),
        ("AZURE_OPENAI_API_KEY", "https://mine.openai.azure.com", True),
        ("AWS_SECRET_ACCESS_KEY", "https://api.openai.com/v1", False),
    ],
)
def test_usual_names_go_to_their_own_providers(name, url, is_allowed):
    assert Grants().allows(name, server_of(url)) is is_allowed


def test_the_address_that_the_process_itself_names_is_one_for_its_key(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://gateway:4000/v1")
    assert Grants().allows("OPENAI_API_KEY", server_of("http://gateway:4000/other"))
    assert not Grants().allows("OPENAI_API_KEY", server_of("http://gateway:4001/v1"))


@pytest.mark.parametrize(
    "url", ["https://host/v1", "https://host:8443/v1", "http://host/v1", "http://localhost:8000/v1", "https://[::1]/v1"]
)
def test_the_setting_that_an_error_names_is_the_one_that_mends_it(url):
    variable, _, entries = setting_for("K", server_of(url)).partition("=")
    assert variable == "PINNACLE_SECRETS"
    assert allows(entries, "K", url)


# -- code as a destination -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Own(BaseLLMAPI):
    """A provider whose address is known to its own code alone."""

    endpoint: str = "https://a.example"

    def _generate(self, prompt, **kwargs):
        return self.key()


def loaded(cls, entries="", **fields):
    with loading(Origin(Grants.of(entries.split(",") if entries else ()))):
        return cls(**fields)


def test_a_class_of_ones_own_is_a_place_and_its_own_fields_are_part_of_it(monkeypatch):
    monkeypatch.setenv("OWN_KEY_OF_TESTS", "a-secret-of-tests")
    place = f"{Own.__module__}:Own"
    fields = {"identifier": "own", "api_key": "env:OWN_KEY_OF_TESTS"}
    with pytest.raises(AccountRefused, match=f"PINNACLE_SECRETS=OWN_KEY_OF_TESTS@{place}"):
        loaded(Own, **fields, endpoint="https://b.example").predict("x")
    assert loaded(Own, f"OWN_KEY_OF_TESTS@{place}", **fields).predict("x") == "a-secret-of-tests"
    assert Own(**fields, endpoint="https://a.example").predict("x") == "a-secret-of-tests"
    assert loaded(Own, **fields, max_tries=2, prompt_template="> {input}").predict("x") == "a-secret-of-tests"
    for changed in ({"endpoint": "https://evil"}, {"inference_kwargs": {"api_base": "https://evil"}}):
        with pytest.raises(AccountRefused, match="PINNACLE_SECRETS"):
            loaded(Own, **fields, **changed).predict("x")


def test_a_literal_key_is_kept_by_another_version_only_where_it_goes_to_the_same_place():
    here = Own("own", api_key="sk-literal-of-tests", endpoint="https://a.example")
    same, other = loaded(Own, identifier="own"), loaded(Own, identifier="own", endpoint="https://evil")
    for each in (same, other):
        keep_secrets(each, here)
    assert (same.api_key, other.api_key) == ("sk-literal-of-tests", None)


def test_what_is_made_by_a_loaded_component_is_loaded_too():
    with loading(Origin(Grants())):
        inner = Own("inner", api_key="env:X")
    assert inner.granted == Grants()
    assert Own("mine").granted is None
    assert Destination("a:b").setting == "a:b"
    assert Model.stored_origin is None


def test_a_copy_of_a_loaded_component_is_trusted_no_further():
    copy = dataclasses.replace(loaded(Own, identifier="own", endpoint="https://a.example"), endpoint="https://evil")
    assert (copy.granted, is_stored(copy), may_run_code(copy)) == (Grants(), True, False)
    mine = dataclasses.replace(copy, stored_origin=None)
    assert (mine.granted, is_stored(mine), may_run_code(mine)) == (None, False, True)
    with loading(Origin(Grants(), may_run_code=True)):
        allowed = Own("own")
    assert may_run_code(dataclasses.replace(allowed, identifier="other"))
    assert "stored_origin" not in copy.content()
    assert copy == dataclasses.replace(mine, identifier="own")
