"""What training needs to go on, as safetensors and JSON: torch keeps it pickled, and nothing pickled is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PICKLED = (".pt", ".pth")
TENSORS, TREE = ".safetensors", ".tree.json"


def without_pickles(folder: Path, into: Path) -> dict[str, Path]:
    """The folder's pickled states, each as two files in ``into``, by name.

    Read by torch's own loader of plain data, which runs no code, and not into memory: an optimizer's state is twice
    as large as what is trained.
    """
    import torch
    from safetensors.torch import save_file
    from transformers.trainer_pt_utils import safe_globals

    files = {}
    into.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in folder.iterdir() if path.suffix in PICKLED):
        context: Any = safe_globals
        with context():
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        tensors: dict[str, Any] = {}
        tree = _take_apart(state, tensors)
        for suffix in (TENSORS, TREE):
            files[f"{path.name}{suffix}"] = into / f"{path.name}{suffix}"
        save_file(_apart(tensors), files[f"{path.name}{TENSORS}"])
        files[f"{path.name}{TREE}"].write_text(json.dumps(tree))
    return files


def with_pickles(folder: Path) -> None:
    """Put back, in their folder, the files that `without_pickles` took apart."""
    import torch
    from safetensors.torch import load_file

    for path in sorted(folder.glob(f"*{TREE}")):
        name = path.name.removesuffix(TREE)
        tensors = load_file(folder / f"{name}{TENSORS}")
        torch.save(_put_together(json.loads(path.read_text()), tensors), folder / name)
        path.unlink()
        (folder / f"{name}{TENSORS}").unlink()


def _take_apart(value: Any, tensors: dict[str, Any]) -> Any:
    """``value`` as JSON; its tensors and arrays go to ``tensors``, under a number."""
    import numpy as np
    import torch

    if isinstance(value, (torch.Tensor, np.ndarray)):
        name = str(len(tensors))
        is_array = isinstance(value, np.ndarray)
        plain: Any = value
        tensor = torch.from_numpy(plain.astype(np.int64)) if is_array else plain
        tensors[name] = tensor.detach().contiguous()
        return {"array": [name, str(value.dtype)]} if is_array else {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[_take_apart(key, tensors), _take_apart(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_take_apart(item, tensors) for item in value]
        return {"list" if isinstance(value, list) else "tuple": items}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a state of training holds a {type(value).__name__}, which is no plain data")


def _apart(tensors: dict[str, Any]) -> dict[str, Any]:
    """The same tensors, each with memory of its own, as their file wants them: those that share some are copied."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen:
            tensors[name] = tensor.clone()
        seen.add(place)
    return tensors


def _put_together(tree: Any, tensors: Mapping[str, Any]) -> Any:
    import numpy as np

    if not isinstance(tree, dict):
        return tree
    kind, content = next(iter(tree.items()))
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content[0]].numpy().astype(np.dtype(content[1]))
    if kind == "dict":
        return {_put_together(key, tensors): _put_together(item, tensors) for key, item in content}
    items = [_put_together(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
