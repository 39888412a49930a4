"""Faces of plug-ins, under import paths that users write."""
