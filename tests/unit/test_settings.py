"""Settings that cannot be meant are refused where they are made, be it in code or by the environment."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pinnacle import ConfigError, Settings

SECONDS = ["lease_ttl_s", "write_target_s", "outage_patience_s", "cache_ttl_s"]


def test_every_number_is_among_those_that_are_checked():
    assert [name for name, value in vars(Settings()).items() if type(value) in (int, float)] == SECONDS


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -3, -0.1, True, "15", None])
def test_what_is_no_number_of_seconds_is_refused_in_code(name, value):
    with pytest.raises(ConfigError, match=rf"{name} \(PINNACLE_{name.upper()}\) is a number of seconds .*, not"):
        Settings(**{name: value})
    with pytest.raises(ConfigError, match=name):
        replace(Settings(), **{name: value})


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("raw", ["nan", "inf", "-inf", "1e999", "-3", "", "soon", "15 s"])
def test_what_is_no_number_of_seconds_is_refused_in_the_environment(name, raw):
    with pytest.raises(ConfigError, match=rf"{name} \(PINNACLE_{name.upper()}\) is a number of seconds .*, not"):
        Settings.from_environment({f"PINNACLE_{name.upper()}": raw})


@pytest.mark.parametrize("name", SECONDS[:-1])
def test_zero_seconds_are_refused(name):
    with pytest.raises(ConfigError, match="above 0, not 0"):
        Settings(**{name: 0})
    with pytest.raises(ConfigError, match="above 0, not 0"):
        Settings.from_environment({f"PINNACLE_{name.upper()}": "0"})


def test_answers_may_be_kept_for_zero_seconds():
    assert Settings(cache_ttl_s=0).cache_ttl_s == 0
    assert Settings.from_environment({"PINNACLE_CACHE_TTL_S": "0"}).cache_ttl_s == 0


@pytest.mark.parametrize(
    ("name", "most"),
    [("lease_ttl_s", 86_400), ("write_target_s", 60), ("outage_patience_s", 1e9), ("cache_ttl_s", 1e9)],
)
def test_no_more_seconds_than_can_be_meant_are_taken(name, most):
    assert getattr(Settings(**{name: most}), name) == most
    with pytest.raises(ConfigError, match=rf"{name} .* of at most {most:,.0f}, not"):
        Settings(**{name: most * 1.01})


@pytest.mark.parametrize("name", ["TRUSTED_MODULE", "OUTAGE_PATIENCE", "SECRETFILE"])
def test_a_misspelt_variable_is_told_with_the_name_that_may_be_meant(name):
    with pytest.warns(UserWarning, match=rf"nothing reads PINNACLE_{name}; is PINNACLE_[A-Z_]+ meant\?"):
        Settings.from_environment({f"PINNACLE_{name}": "1"})


def test_variables_of_other_names_are_left_alone():
    Settings.from_environment({"PINNACLE_THEME": "dark", "MY_TRUSTED_MODULE": "1", "PINNACLE_TEST_RUN": "1"})


@pytest.mark.parametrize("name", SECONDS)
def test_a_number_of_seconds_is_taken(name):
    assert getattr(Settings(**{name: 2}), name) == 2
    assert getattr(Settings.from_environment({f"PINNACLE_{name.upper()}": "0.5"}), name) == 0.5


@pytest.mark.parametrize(
    ("raw", "allowed"),
    [("", []), ("false", []), ("0", []), ("TRUE", ["m", "n"]), ("m", ["m"]), (" m , o", ["m"]), ("m*", [])],
)
def test_consent_to_code_is_a_truth_or_names(raw, allowed):
    settings = Settings.from_environment({"PINNACLE_ALLOW_REMOTE_CODE": raw})
    assert [name for name in ("m", "n") if settings.allows_code_of(name)] == allowed
