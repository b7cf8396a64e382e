"""The model that a bundle is made from: the copy that is exported, its fingerprint, and its labels."""

import copy
import hashlib
import json
from typing import Any

import torch

from arraylstm import ItemModel


def frozen(model: ItemModel) -> ItemModel:
    """Return a copy on the CPU in eval mode and float32."""
    return copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)


def fingerprint(model: ItemModel) -> str:
    """Return `sha256:<hex>` over vocabulary, weights, and what of the configuration changes answers."""
    digest = hashlib.sha256(json.dumps([model.without_inert(), vocabulary_fields(model)], sort_keys=True).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def vocabulary_fields(model: ItemModel) -> dict[str, Any]:
    """Return the content of vocabulary.json: labels by id and the unknown item, both null without a vocabulary."""
    if model.vocabulary is None:
        return {"labels": None, "unknown": None}
    return model.vocabulary.fields()
