"""vLLM as pinnacle models."""

from pinnacle_vllm.api import VllmAPI
from pinnacle_vllm.model import VllmModel

__all__ = ["VllmAPI", "VllmModel"]
