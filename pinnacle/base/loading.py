"""One at a time loads weights: the libraries change settings of the whole process while they do."""

from __future__ import annotations

import threading

loading_lock = threading.RLock()
"""Held by whoever loads weights or makes a model of them, also to train it."""
