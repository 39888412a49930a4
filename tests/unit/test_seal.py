"""What a secret signs is known again, and nothing else is."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pinnacle import ConfigError, NotAuthenticated, Settings
from pinnacle.base.seal import NO_SEAL, Seal, Sealed
from pinnacle.base.secret_file import SecretFile

ONE, TWO = "the-first-secret-of-two", "the-second-secret-of-two"
RECORD = Sealed(table="t", name="model 'm' version 0", fields={"kind": "model", "version": 0, "body": "{}"}, mac=None)


def signed(record=RECORD, secret=ONE):
    return replace(record, mac=Seal(secret).sign(record))


def test_what_was_signed_is_known_again():
    assert Seal(ONE).refusal(signed()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"table": "u"}, {"fields": {**RECORD.fields, "version": 1}}, {"fields": {**RECORD.fields, "version": "0"}},
        {"fields": {**RECORD.fields, "kind": "listener"}}, {"fields": {**RECORD.fields, "body": "{ }"}},
        {"fields": {**RECORD.fields, "more": None}}, {"fields": {**RECORD.fields, "body": b"{}"}},
        {"fields": {**RECORD.fields, "version": float("nan")}}, {"fields": {**RECORD.fields, "version": False}},
    ],
)  # fmt: skip
def test_no_other_content_and_no_other_place_is(change):
    refusal = Seal(ONE).refusal(replace(signed(), **change))
    assert isinstance(refusal, NotAuthenticated)
    assert refusal.record == "model 'm' version 0"
    assert "changed, or moved from elsewhere, since it was signed" in str(refusal)
    assert "pinnacle trust URL" in str(refusal)


@pytest.mark.parametrize("mac", [None, "", "x", 7, b"1:", "1:é", f"1:{'0' * 8}:{'0' * 64}", f"2{signed().mac[1:]}"])
def test_no_other_signature_is(mac):
    assert Seal(ONE).refusal(replace(RECORD, mac=mac)) is not None


def test_what_is_not_signed_and_what_another_secret_signed_are_told_apart():
    assert "it is not signed" in str(Seal(ONE).refusal(RECORD))
    told = str(Seal(ONE).refusal(signed(secret=TWO)))
    assert "with another secret than the one of this process (PINNACLE_SECRET)" in told
    assert ONE not in told


def test_of_several_secrets_the_first_signs_and_all_are_known():
    both = Seal(f"{TWO},{ONE}")
    old, new = signed(secret=ONE), signed(secret=TWO)
    assert (both.refusal(old), both.refusal(new)) == (None, None)
    assert both.sign(RECORD) == new.mac
    assert (both.is_latest(old), both.is_latest(new)) == (False, True)


def test_without_a_secret_nothing_is_signed_and_all_is_taken():
    assert (NO_SEAL.is_on, NO_SEAL.sign(RECORD)) == (False, None)
    assert (NO_SEAL.refusal(RECORD), NO_SEAL.refusal(signed())) == (None, None)


@pytest.mark.parametrize("secret", [" ", ",", "short", "long enough to be one, short"])
def test_a_secret_that_can_be_guessed_is_refused(secret):
    with pytest.raises(ConfigError, match="of 16 characters or more") as raised:
        Seal(secret)
    assert "short" not in str(raised.value)


@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_may_read_is_refused(tmp_path, mode, is_open):
    path = tmp_path / "secret"
    path.write_text("a secret that stands in a file")
    path.chmod(mode)
    if is_open:
        with pytest.raises(ConfigError, match=f"open to other users .mode {mode:o}.*chmod 600"):
            SecretFile(path, may_make=True).read_or_make()
    else:
        assert SecretFile(path, may_make=True).read_or_make() == "a secret that stands in a file"


def test_a_file_of_another_user_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    path.write_text("a secret that stands in a file")
    path.chmod(0o600)
    owner = path.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 4711)
    if owner == 0:  # who is trusted with everything
        assert SecretFile(path, may_make=True).read() is not None
        os.chown(path, 4712, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        SecretFile(path, may_make=True).read()


def test_a_missing_file_is_made_once_and_for_its_user_alone(tmp_path):
    path = tmp_path / "config" / "pinnacle" / "secret"
    made = SecretFile(path, may_make=True).read_or_make()
    assert len(made.strip()) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert SecretFile(path, may_make=True).read_or_make() == made
    assert [each.name for each in path.parent.iterdir()] == ["secret"]


def test_of_two_processes_that_make_it_at_once_both_have_the_same(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    late = SecretFile(path, may_make=True)
    monkeypatch.setattr(late, "read", lambda: None)  # as it was when it looked
    first = SecretFile(path, may_make=True).read_or_make()
    late._make()
    monkeypatch.undo()
    assert late.read_or_make() == first


def test_an_embedded_database_has_a_secret_of_its_user_and_a_server_has_none(tmp_path, monkeypatch):
    monkeypatch.delenv("PINNACLE_SECRET_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    embedded = Seal.of(Settings(), is_embedded=True)
    assert (embedded.is_on, Seal.of(Settings(), is_embedded=False).is_on) == (True, False)
    assert embedded.refusal(RECORD) is not None
    assert not (tmp_path / "pinnacle").exists()  # not before something is signed
    mac = embedded.sign(RECORD)
    assert Seal.of(Settings(), is_embedded=True).refusal(replace(RECORD, mac=mac)) is None
    assert not Seal.of(Settings(secret_file="off"), is_embedded=True).is_on


def test_an_embedded_database_goes_without_where_no_secret_can_be_kept(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("PINNACLE_SECRET_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("no folder")
    assert not Seal.of(Settings(), is_embedded=True).is_on
    assert "definitions are not authenticated" in caplog.text


def test_a_file_that_is_named_is_for_every_database_and_never_made(tmp_path):
    path = tmp_path / "secret"
    with pytest.raises(ConfigError, match=r"there is no secret in .*token_hex"):
        Seal.of(Settings(secret_file=path), is_embedded=False)
    path.write_text(f"{TWO}\n{ONE}\n")
    path.chmod(0o600)
    seal = Seal.of(Settings(secret_file=path), is_embedded=False)
    assert seal.sign(RECORD) == Seal(TWO).sign(RECORD)


def test_the_secret_of_the_environment_goes_before_any_file_and_is_in_no_repr(tmp_path):
    settings = Settings.from_environment({"PINNACLE_SECRET": ONE, "PINNACLE_SECRET_FILE": str(tmp_path / "none")})
    assert Seal.of(settings, is_embedded=True).sign(RECORD) == signed().mac
    assert ONE not in repr(settings)
    assert Settings.from_environment({"PINNACLE_SECRET": "", "PINNACLE_SECRET_FILE": "off"}).secret is None


def test_settings_that_are_made_in_code_have_the_secret_of_the_environment(monkeypatch):
    monkeypatch.setenv("PINNACLE_SECRET", ONE)
    assert Settings(lease_ttl_s=1.0).secret == ONE
    assert Settings(secret=TWO).secret == TWO
