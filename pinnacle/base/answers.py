"""What is said of an answer beside its text."""

from __future__ import annotations


class CutText(str):
    """An answer that ended at the limit of tokens and is stored all the same: counted, and not kept for another row."""

    __slots__ = ()
