"""Memory and disks that are full while a model trains: told with what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pinnacle import BackendError, PinnacleError, TrainingError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM = (
    "No space left", "disk is full", "OutOfDiskSpace", "File too large", "quota exceeded", "PytorchStreamWriter",
    "iostream error",
)  # fmt: skip
NO_MEMORY = ("out of memory", "can't allocate memory")
"""What the libraries say of a disk and of memory that is full."""


@contextlib.contextmanager
def told_with_a_remedy(args: Any, folder: Path) -> Iterator[None]:
    """TrainingError, with what to do, for memory and disks that are full."""
    try:
        yield
    except PinnacleError as error:
        if isinstance(error, BackendError) and _says(str(error), NO_ROOM):
            raise TrainingError(
                f"the disk of the database is full ({str(error)[:200]}): make room. The checkpoints stored so far "
                "are kept, and the same fit goes on from the last"
            ) from error
        raise
    except Exception as error:  # the unit of work: one training, whose error says what to do; raised again
        if remedy := remedy_of(error, args, folder):
            raise TrainingError(remedy) from error
        raise


def remedy_of(error: BaseException, args: Any, folder: Path) -> str | None:
    """What to do where memory or a disk is full; told by words, of classes that the libraries do not share."""
    if error.__context__ is not None and (remedy := remedy_of(error.__context__, args, folder)):
        return remedy  # what came of it may say nothing
    words = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _says(words, NO_MEMORY):
        return (
            f"out of memory: lower per_device_train_batch_size={args.per_device_train_batch_size} (with "
            "gradient_accumulation_steps= as much higher) or max_length=, or train with use_lora=True and bits=4. "
            "The checkpoints stored so far are kept, and the same fit goes on from the last"
        )
    if getattr(error, "errno", None) in FULL or _says(words, NO_ROOM):
        return (
            f"the disk of {str(folder)!r} is full ({words[:200]}): make room, or pass save_total_limit= or another "
            "output_dir=. The checkpoints stored so far are kept, and the same fit goes on from the last"
        )
    return None


def _says(words: str, signs: tuple[str, ...]) -> bool:
    return any(sign.lower() in words.lower() for sign in signs)
