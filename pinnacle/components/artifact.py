"""Files and blobs of a component: addressed by SHA-256, read in chunks, never whole unless asked."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pinnacle.base import limits
from pinnacle.base.errors import ComponentError, ConfigError
from pinnacle.base.told import logger

DATA_SUFFIXES = frozenset({
    ".safetensors", ".gguf", ".json", ".jsonl", ".txt", ".md", ".jinja", ".model", ".vocab", ".spm", ".bpe",
    ".tiktoken",
})  # fmt: skip
"""Files that hold weights, settings, tokenizers and texts, none of which runs when it is opened."""
TEXTS = ("LICENSE", "NOTICE", "README")

log = logger(__name__)


class Artifact:
    """Bytes or a file that a component carries; a field may hold one, or a dict of them.

    ``Artifact(b"...")`` holds the bytes, ``Artifact(Path("weights.safetensors"))`` names a
    file, which is read when the component is stored. A loaded artifact is read from the
    catalog when asked; its content is checked against its hash on the way.
    """

    def __init__(self, content: bytes | str | os.PathLike[str]) -> None:
        self._bytes = bytes(content) if isinstance(content, (bytes, bytearray, memoryview)) else None
        self._path = Path(content) if isinstance(content, (str, os.PathLike)) else None
        self._stored: Callable[[], Iterator[bytes]] | None = None
        self.cache_dir: Path | None = None
        self.may_be_code = True
        if self._bytes is None and (self._path is None or not self._path.is_file()):
            raise ConfigError(f"Artifact takes bytes or the path of a file, and {content!r} is neither")

    @classmethod
    def stored(
        cls, sha256: str, size: int, read: Callable[[], Iterator[bytes]], cache_dir: Path, *, may_be_code: bool = False
    ) -> Artifact:
        """An artifact at rest: ``read`` opens its chunks, ``cache_dir`` is where it may be unpacked.

        Unless it ``may_be_code`` it is unpacked only under a name of `DATA_SUFFIXES`.
        """
        artifact = cls(b"")
        artifact._bytes, artifact._stored, artifact.cache_dir = None, read, cache_dir
        artifact.may_be_code = may_be_code
        artifact.__dict__.update(sha256=sha256, size=size)
        return artifact

    @cached_property
    def sha256(self) -> str:
        """The hex digest of the content, taken when first asked for: a file that is stored is read twice, once for
        the hash that it is stored under, and once more to store it."""
        digest = hashlib.sha256()
        for chunk in self._raw():
            digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def size(self) -> int:
        """Length in bytes."""
        return self._path.stat().st_size if self._path else len(self._bytes or b"")

    def chunks(self) -> Iterator[bytes]:
        """The content in pieces of at most 1 MiB, or as the catalog keeps them.

        Raises ComponentError at the end if the content is not what ``sha256`` says.
        """
        expected, digest = self.sha256, hashlib.sha256()
        for chunk in self._raw():
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != expected:
            where = f"file {str(self._path)!r}" if self._path else "the catalog"
            raise ComponentError(
                f"artifact {expected} from {where} has other content than its hash says: "
                "it was changed or damaged; add the component again from the original"
            )

    def read(self) -> bytes:
        """The whole content."""
        return b"".join(self.chunks())

    def _raw(self) -> Iterator[bytes]:
        if self._path is not None:
            with self._path.open("rb") as file:
                while chunk := file.read(limits.CHUNK_BYTES):
                    yield chunk
        elif self._stored is not None:
            yield from self._stored()
        else:
            content = self._bytes or b""
            yield from (content[i : i + limits.CHUNK_BYTES] for i in range(0, len(content), limits.CHUNK_BYTES))

    def __eq__(self, other: object) -> bool:
        return self.sha256 == other.sha256 if isinstance(other, Artifact) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"Artifact({str(self._path)!r})" if self._path else f"<Artifact of {self.size} bytes>"


def folder_artifacts(folder: str | os.PathLike[str]) -> dict[str, Artifact]:
    """Every file below ``folder`` as an artifact, by its relative path; hidden files are left out."""
    root = Path(folder)
    found = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            found[relative.as_posix()] = Artifact(path)
    return found


def unpack(files: Mapping[str, Artifact], cache_dir: Path | None = None, *, more: Collection[str] = ()) -> Path:
    """Write ``files`` into a folder of their own under the cache and return it.

    The folder's name is a hash of all names and contents: unpacked once, then shared by
    every process. It appears whole or not at all. Names that lead out of it are refused.

    Of files from a database those with other suffixes than `DATA_SUFFIXES` are left out, and a warning names them:
    code and pickles run once they are opened. ``more`` suffixes are data to the caller too;
    ``PINNACLE_ALLOW_REMOTE_CODE`` lets all files of a component through.
    """
    cache = cache_dir or next((a.cache_dir for a in files.values() if a.cache_dir), None)
    if cache is None:
        raise ConfigError("unpack needs cache_dir= for artifacts that were not loaded from a catalog")
    files = _data(files, more)
    listing = json.dumps({name: artifact.sha256 for name, artifact in files.items()}, sort_keys=True)
    folder = cache / "artifacts" / hashlib.sha256(listing.encode()).hexdigest()
    if _is_complete(folder, files):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    passing = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        _write_all(files, passing)
        _put_in_place(passing, folder, files)
    finally:
        shutil.rmtree(passing, ignore_errors=True)
    return folder


def write_files(files: Mapping[str, Artifact], folder: Path) -> None:
    """Write ``files`` into ``folder``, by their names. Names that lead out of it are refused, and those that are no
    data left out, as `unpack` does."""
    _write_all(_data(files, ()), folder)


def _write_all(files: Mapping[str, Artifact], folder: Path) -> None:
    for name, artifact in files.items():
        _write(folder / _safe(name), artifact)


def _data(files: Mapping[str, Artifact], more: Collection[str]) -> dict[str, Artifact]:
    """Without what may not be unpacked."""
    suffixes = {*DATA_SUFFIXES, *more}
    kept = {
        name: artifact
        for name, artifact in files.items()
        if artifact.may_be_code or _safe(name).suffix.lower() in suffixes or _safe(name).name in TEXTS
    }
    if left := sorted(files.keys() - kept.keys()):
        log.warning(
            "files that came from the database are left out, since code and pickles run when they are opened: %s; "
            "PINNACLE_ALLOW_REMOTE_CODE says which models' files are written whatever they are",
            ", ".join(map(ascii, left)),
        )
    return kept


def _safe(name: str) -> PurePosixPath:
    if not isinstance(name, str):
        raise ComponentError(f"artifact name {name!r} is no text")
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\x00" in name:
        raise ComponentError(f"artifact name {name!r} would be written outside of its folder; it is refused")
    return path


def _write(path: Path, artifact: Artifact) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for chunk in artifact.chunks():
            file.write(chunk)


def _put_in_place(passing: Path, folder: Path, files: Mapping[str, Any]) -> None:
    """Rename atomically; another process that was faster has written the same content."""
    try:
        passing.rename(folder)
    except OSError:
        if _is_complete(folder, files):
            return
        # A damaged copy is in the way: move it aside first.
        folder.rename(passing.with_suffix(".damaged"))
        passing.rename(folder)
        shutil.rmtree(passing.with_suffix(".damaged"), ignore_errors=True)


def _is_complete(folder: Path, files: Mapping[str, Artifact]) -> bool:
    """Whether an unpacked folder has every file at its size; contents were checked when written."""
    return folder.is_dir() and all(
        (path := folder / _safe(name)).is_file() and path.stat().st_size == artifact.size
        for name, artifact in files.items()
    )
