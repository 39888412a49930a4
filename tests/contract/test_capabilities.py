"""The tests' table of capabilities says what the backends say, so that gating by it leaves no test out."""

from __future__ import annotations

from contextlib import closing

from pinnacle.backends.open import open_backend
from pinnacle.backends.protocol import Capability
from pinnacle.base.settings import Settings
from tests.databases import CAPABILITIES


def test_a_backend_can_do_what_the_table_says(backend):
    with closing(open_backend(backend.address, Settings())) as opened:
        assert opened.capabilities == CAPABILITIES[backend.name]


def test_a_backend_has_a_searcher_where_it_can_search(backend):
    with closing(open_backend(backend.address, Settings())) as opened:
        can_search = not opened.capabilities.isdisjoint({Capability.VECTOR_SEARCH, Capability.TEXT_SEARCH})
        assert (opened.searcher is not None) == can_search
