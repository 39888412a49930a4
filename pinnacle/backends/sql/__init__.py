"""What SQLite and PostgreSQL share, through SQLAlchemy."""
