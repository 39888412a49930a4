"""Sentence Transformers as pinnacle models."""

from pinnacle_sentence_transformers.model import SentenceTransformer

__all__ = ["SentenceTransformer"]
