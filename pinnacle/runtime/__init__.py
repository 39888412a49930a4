"""The only room that calls models for a database."""
