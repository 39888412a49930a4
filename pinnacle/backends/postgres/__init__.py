"""What differs from sql/ on PostgreSQL."""
