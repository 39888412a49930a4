"""Saves components as versions, and loads them again without running code from the database."""
