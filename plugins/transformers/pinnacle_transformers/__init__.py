"""Language models of transformers as pinnacle models."""

from pinnacle_transformers.configuration import LLMTrainingConfiguration
from pinnacle_transformers.model import LLM

__all__ = ["LLM", "LLMTrainingConfiguration"]
