"""What pinnacle is called where packages are installed from: the import's name is somebody else's project there."""

from __future__ import annotations

DISTRIBUTION = "pinnacle-ai"


def with_extra(extra: str) -> str:
    """What to install for one of pinnacle's extras, ``"pinnacle-ai[postgres]"``."""
    return f"{DISTRIBUTION}[{extra}]"
