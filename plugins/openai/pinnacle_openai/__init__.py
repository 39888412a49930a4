"""OpenAI's API as pinnacle models."""

from pinnacle_openai.chat import OpenAI
from pinnacle_openai.embedding import OpenAIEmbedding

__all__ = ["OpenAI", "OpenAIEmbedding"]
