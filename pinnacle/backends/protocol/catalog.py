"""Where components, their artifacts, and the metrics of training runs are kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from pinnacle.base.rows import Record
from pinnacle.base.seal import Seal, Sealed


class Seals(Protocol):
    """What stored definitions are signed with."""

    @property
    def seal(self) -> Seal: ...

    def records(self) -> Iterator[Sealed]:
        """All that can be signed, as it is stored, whether or not it is signed."""

    def put(self, record: Sealed) -> bool:
        """Sign a record; False, and nothing is changed, where it is not as it was read any more."""


class CatalogStore(Protocol):
    """Where components and artifacts are kept."""

    def save(self, record: Record) -> bool:
        """Store one version; False when that version exists already (another process was faster).

        Records may share artifacts, which must all be there: NotFound, and nothing is stored, when one went with
        the last other record that used it. Put it again, then save again.
        """

    def amend(self, record: Record) -> None:
        """Put the record's body in place of that of the version it names."""

    def get(self, kind: str, identifier: str, version: int | None = None) -> Record | None:
        """One version, or the newest."""

    def versions(self, kind: str, identifier: str) -> list[Record]:
        """All versions, oldest first."""

    def newest(self, kind: str, identifiers: Collection[str]) -> dict[str, int]:
        """The newest version of each of these components that is there, in one small query; no body is read."""

    def identifiers(self, kind: str | None = None) -> list[tuple[str, str]]:
        """(kind, identifier) pairs, sorted."""

    def delete(self, kind: str, identifier: str, version: int | None = None) -> int:
        """Remove one version or all, and the artifacts nothing refers to any more."""

    def has_artifact(self, sha256: str) -> bool: ...

    def put_artifact(self, sha256: str, chunks: Iterable[bytes]) -> None:
        """Store a blob under its hash, chunk by chunk; a no-op when it is there.

        ``chunks`` are taken ahead in another thread, a few at a time. The blob is there once all of them are: what
        fails, or is killed, leaves nothing that is seen, and what it did leave is erased by a later call.
        """

    def get_artifact(self, sha256: str) -> Iterator[bytes]:
        """The blob's chunks in order, none over 4 MiB; NotFound when it is absent, or removed meanwhile."""


class RunStore(Protocol):
    """Training runs: who may train a model, and the metrics that a run logged.

    What is read before pinnacle's own tables are there is empty; what is written makes them.
    """

    def lease(self, model: str, token: str, ttl_s: float) -> str | None:
        """Take or renew the right to train ``model``, for ``ttl_s`` seconds; None when it was granted, else its
        owner (host:pid) as text. A lease whose process on this machine is dead, or that has expired, is void.

        Of several who ask at once, exactly one gets it. A lease that was lost is renewed only where nobody has it.
        """

    def renew(self, model: str, token: str, ttl_s: float) -> bool:
        """Extend the lease of that token by ``ttl_s`` seconds from now, expired or not; False where it is gone:
        another had it since."""

    def leased(self) -> dict[str, str]:
        """The models that somebody trains now (live leases only), with the token of each."""

    def release(self, model: str, token: str) -> None:
        """Give up the lease of that token; any other stays."""

    def log(self, run: str, position: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """Append metrics of a run, from ``position`` on; entries at a position that is there already are replaced
        (a resumed run goes over steps again), and those after the last one are kept. Commits before it returns,
        all or none where there are transactions."""

    def cut(self, run: str, position: int) -> None:
        """Forget the entries of a run from ``position`` on: a resumed run writes them again."""

    def series(self, run: str) -> list[dict[str, Any]]:
        """A run's metrics, in order. Entries are plain JSON objects; NaN and infinities survive."""

    def forget(self, run: str) -> None:
        """Erase the metrics of a run."""
