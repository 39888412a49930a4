"""Conditions at rest: expression trees of an allow-list, made of a select's SQL and made SQL again."""
