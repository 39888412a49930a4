"""The file that holds the secret of a user who has named none: made when it is needed, and readable by no other."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pinnacle.base.errors import ConfigError

SECRET_BYTES = 32


class SecretFile:
    """A file with a secret in it. ``may_make``: whether it is made where it is missing."""

    def __init__(self, path: Path, *, may_make: bool) -> None:
        self.path, self._may_make = path, may_make

    def read(self) -> str | None:
        """What is in it; None where it is not there. ConfigError where others than its user may have read it."""
        try:
            with open(self.path, "rb") as file:
                self._require_private(os.fstat(file.fileno()))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"the secret in {self.path} cannot be read: {error.strerror}") from error

    def read_or_make(self) -> str:
        """What is in it, which is new where it was missing. Of several processes at once all get the same."""
        found = self.read()
        if found is None and self._may_make:
            self._make()
            found = self.read()
        if found is None:
            raise missing(self.path)
        return found

    def can_be_had(self) -> bool:
        """Whether it is there or can be made."""
        if os.path.lexists(self.path):
            return True
        folder = next(parent for parent in self.path.absolute().parents if parent.exists())
        return self._may_make and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)

    def _make(self) -> None:
        """Written under another name, and there at once and whole, or not at all where another process was faster."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)  # of mode 600
            try:
                with open(number, "w") as file:
                    file.write(f"{secrets.token_hex(SECRET_BYTES)}\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.link(name, self.path)
            finally:
                os.unlink(name)
        except FileExistsError:
            return
        except OSError as error:
            raise ConfigError(
                f"a secret for signing cannot be kept in {self.path} ({error.strerror}); set PINNACLE_SECRET, or "
                "PINNACLE_SECRET_FILE to another place, or to off"
            ) from error

    def _require_private(self, found: os.stat_result) -> None:
        if os.name == "nt":
            return
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{self.path} is no file with a secret")
        if found.st_uid not in (0, os.geteuid()):
            raise ConfigError(f"the secret in {self.path} belongs to another user; make one that is yours alone")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigError(
                f"the secret in {self.path} is open to other users (mode {stat.S_IMODE(found.st_mode):o}): if nobody "
                f"may have read it, run chmod 600 {self.path}; else put another in its place"
            )


def usual_path(environment: Mapping[str, str] | None = None) -> Path | None:
    """Beside the user's configuration; None for a user without a home."""
    env = os.environ if environment is None else environment
    if env.get("XDG_CONFIG_HOME"):
        return Path(env["XDG_CONFIG_HOME"]) / "pinnacle" / "secret"
    try:
        return Path.home() / ".config" / "pinnacle" / "secret"
    except RuntimeError:
        return None


def missing(path: Path) -> ConfigError:
    """There is no file of a secret that was named."""
    return ConfigError(
        f"there is no secret in {path}, which PINNACLE_SECRET_FILE names; make one: (umask 077; "
        f"python -c 'import secrets; print(secrets.token_hex(32))' > {path})"
    )
