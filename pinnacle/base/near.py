"""Says, of a name that is not there, which names that are it may stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import SequenceMatcher, get_close_matches

ALIKE = 0.6
AS_NEAR = 0.12
"""So much less like it than the nearest name another may be, to be offered beside it."""
MOST = 3
LISTED = 10
MISSPELT = 0.85
"""So alike is a name to one that it is taken for; ``min_tokens`` and ``max_tokens`` are less."""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """The names like ``name``, the nearest first; whether letters are capital does not matter."""
    matcher = SequenceMatcher(b=name.casefold(), autojunk=False)
    ratios: list[tuple[float, str]] = []
    for each in known:
        matcher.set_seq1(each.casefold())
        if matcher.quick_ratio() >= ALIKE and (ratio := matcher.ratio()) >= ALIKE:
            ratios.append((-ratio, each))
    ratios.sort()
    return [each for ratio, each in ratios if ratio <= ratios[0][0] + AS_NEAR][:MOST]


def did_you_mean(name: str, known: Collection[str], *, none: str) -> str:
    """The end of a message: near names, else those that there are, else what ``none`` says."""
    if near := near_names(name, known):
        return f"did you mean {' or '.join(map(repr, near))}?"
    if not known:
        return none
    listed = sorted(known)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return f"there is {', '.join(map(repr, listed[:LISTED]))}{more}"


def meant_by(name: str, known: Collection[str]) -> str | None:
    """The name that a misspelt one is most likely meant for; None for one that is known, or like none."""
    near = () if name in known else get_close_matches(name, known, 1, MISSPELT)
    return near[0] if near else None
