"""One at a time loads weights: the libraries change settings of the whole process while they do."""

from __future__ import annotations

from pinnacle.base import forks

loading_lock = forks.rlock()
"""Held by whoever loads weights or makes a model of them, also to train it."""
