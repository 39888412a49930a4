"""Limits that hold on every database alike: what is kept of errors, of paid results and of artifacts."""

from __future__ import annotations

MAX_MESSAGE = 2_000
"""Characters of the message of a row that was set aside; its beginning is kept."""

MAX_TRACEBACK = 8_000
"""Characters of such a row's traceback; its end is kept."""

MAX_TRACEBACKS = 1_000
"""How many rows of one output keep their traceback, the newest; older ones keep all else of their error."""

NEWEST_ERRORS = 1_000
"""How many rows that were set aside are listed unless more are asked for."""

MAX_CACHE_ENTRIES = 100_000
"""A cache of paid results is brought back to as many, its oldest entries first."""

TRIM_EVERY = 1_000
"""How many entries a process puts into a cache before it looks for those that must go."""

CHUNK_BYTES = 1 << 20
"""The contents of artifacts are kept in chunks of this size."""

UPLOAD_TTL_S = 600.0
"""An upload of an artifact that was silent for so long is given up."""

UNUSED_TTL_S = 86_400.0
"""How long an artifact may wait for the record that uses it, unless its process is seen to be gone."""
