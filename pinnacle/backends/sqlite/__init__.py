"""What differs from sql/ on SQLite."""
