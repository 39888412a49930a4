"""The figures pinnacle is held to, each beside its ceiling from the same run: ``python -m benchmarks [NAME ...]``."""
