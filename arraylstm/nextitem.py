"""NextItemModel: embedding, a stack of one registry cell, and scores by a linear layer or by the embeddings."""

import math
from typing import Any, no_type_check

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arraylstm.activations import ACTIVATIONS, activate
from arraylstm.cells import CELLS
from arraylstm.checks import require_dropout, require_positive
from arraylstm.model import ItemModel
from arraylstm.stack import make_stack
from arraylstm.vocabulary import Vocabulary


class NextItemModel(ItemModel):
    """Predict the next item of a session from the items so far: embedding, a stack of one registry cell, linear layer.

    It scripts with `torch.jit.script`; the scripted module has `forward`, `step`, `initial_state` and the
    `..._with_diagnostics` methods. `forward` is `unroll`.

    Args:
        cell: a name in `arraylstm.CELLS`.
        num_items: V, the number of items.
        hidden_size: H.
        k: lanes per unit, for the cells that have lanes.
        num_layers: L, cells stacked on each other.
        embedding_size: E, the width of the learned item embedding; None feeds one-hot vectors of width V.
        dropout: probability of zeroing an output of any layer in training, the last one included.
        tied: score items by the product with their own embeddings (Press and Wolf 2017), for which the linear layer
            maps h to E values, instead of by a linear layer to V.
        vocabulary: the items' labels; without one, items are the integers 0 to V-1.
        head_size: width of a linear layer between the cells and `linear`; None for no such layer.
        activation: what stands between those two layers, a name in `arraylstm.activations.ACTIVATIONS`.
        embedding_dropout: probability of zeroing a feature of an item's embedding in training.
        scale: a number by which cosines become scores: embeddings, what `query` gives and the items' rows that it is
            multiplied by all get the length 1, and `query` then this length. None leaves the lengths as they are.
        item_dropout: probability of reading zeros instead of an item's embedding in training.
        learned_start: learn the state that sequences start from, by `Cell.learn_start`; otherwise it is zeros.
        repeat_bias: learn a number that is added to the score of the item just read. A model whose scores come from
            the embeddings takes that item for the likeliest to follow, however seldom items follow themselves.

    With `tied` and `scale` the cells start as a memory of the items read (`Cell.start_as_memory`), and the linear layer
    passes it on: at first the likeliest items are those that are like the ones read.

    Raises:
        ValueError: an unknown cell or activation, a size smaller than 1, a dropout outside [0, 1), a scale that is not
            above 0, tied, embedding_dropout or item_dropout without an embedding, an activation without a head, a
            vocabulary of another size, or a cell that cannot learn a start.
    """

    def __init__(
        self,
        cell: str,
        num_items: int,
        hidden_size: int,
        k: int = 4,
        num_layers: int = 1,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        tied: bool = False,
        vocabulary: Vocabulary | None = None,
        head_size: int | None = None,
        activation: str = "none",
        embedding_dropout: float = 0.0,
        scale: float | None = None,
        repeat_bias: bool = False,
        item_dropout: float = 0.0,
        learned_start: bool = False,
    ) -> None:
        require_positive("num_items", num_items)
        if embedding_size is not None:
            require_positive("embedding_size", embedding_size)
        elif tied:
            raise ValueError("tied needs an embedding to tie the scores to; give an embedding_size")
        elif embedding_dropout or item_dropout:
            name, value = (
                ("embedding_dropout", embedding_dropout) if embedding_dropout else ("item_dropout", item_dropout)
            )
            raise ValueError(f"{name} needs an embedding, got {value} without embedding_size")
        config = {
            "cell": cell,
            "num_items": num_items,
            "hidden_size": hidden_size,
            "k": k,
            "num_layers": num_layers,
            "embedding_size": embedding_size,
            "dropout": require_dropout(dropout),
            "tied": tied,
            **_checked_head(head_size, activation),
            **_checked_recipe(embedding_dropout, item_dropout, scale, repeat_bias),
            **({"learned_start": True} if learned_start else {}),  # a file without it is read by older versions too
        }
        cells = make_stack(cell, embedding_size or num_items, hidden_size, k, num_layers, dropout)
        if learned_start:
            cells.learn_start()
        super().__init__(cells, num_items, vocabulary, config)
        self.embedding = None if embedding_size is None else nn.Embedding(num_items, embedding_size)
        self.cells = cells
        self.dropout, self.activation = dropout, activation
        self.embedding_dropout, self.item_dropout = embedding_dropout, item_dropout
        self.head = None if head_size is None else nn.Linear(hidden_size, head_size)
        self.linear = nn.Linear(head_size or hidden_size, embedding_size if tied and embedding_size else num_items)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_items)) if tied else None)
        self.register_buffer("scale", None if scale is None else torch.tensor(float(scale)))
        self.register_parameter("repeat", nn.Parameter(torch.zeros(())) if repeat_bias else None)
        self.rows_have_length_1 = False
        if tied and self.embedding is not None:  # so that scores start as small as other models'
            nn.init.normal_(self.embedding.weight, std=self.embedding.embedding_dim**-0.5)
            if scale is not None:
                self._start_as_memory()

    @classmethod
    def from_config(cls, config: dict[str, Any], vocabulary: Vocabulary | None) -> "NextItemModel":
        """Construct the model that has this `config` and vocabulary; raises as the constructor does."""
        return cls(**config, vocabulary=vocabulary)

    def without_inert(self) -> dict[str, Any]:
        """Return `config` with the default dropout, and with the default k where the cell has no lanes."""
        lanes = {} if CELLS[self.config["cell"]].has_lanes else {"k": 4}
        config = {
            name: value for name, value in self.config.items() if name not in ("embedding_dropout", "item_dropout")
        }
        return {**config, "dropout": 0.0, **lanes}

    def prepare(self) -> None:
        """Give the items' rows the length 1, where `scale` asks for it, so that no step has to."""
        if self.scale is None or self.rows_have_length_1:
            return
        with torch.no_grad():
            for module in (self.embedding, None if self.bias is not None else self.linear):
                if module is not None:
                    module.weight.copy_(_with_length_1(module.weight))
        self.rows_have_length_1 = True

    def forward(
        self, items: Tensor, state: list[Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Score the next item after every position: items (B, S) -> logits (B, S, V), states; see `unroll`."""
        return self.unroll(items, state, lengths)

    @property
    @no_type_check
    def layers(self):  # noqa: ANN201
        """The stack of cells."""
        return self.cells

    @torch.jit.unused
    def _start_as_memory(self) -> None:
        """Let the cells start as a memory of what they read, and hand it on, unless a head stands between."""
        self.cells.start_as_memory()
        if self.head is None:
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    @torch.jit.unused
    def rescale(self, factor: float, added: Tensor) -> None:
        """Multiply all scores by a factor, and then add to each item's (V,); in place."""
        with torch.no_grad():
            if isinstance(self.scale, Tensor):
                self.scale.mul_(factor)
            else:
                self.linear.weight.mul_(factor)
                if self.bias is not None:  # tied, so the linear layer's own bias is part of the product
                    self.linear.bias.mul_(factor)
            self._rows()[1].mul_(factor).add_(added)
            if isinstance(self.repeat, Tensor):
                self.repeat.mul_(factor)

    def embed(self, items: Tensor) -> Tensor:
        """Return the items' embeddings (..., E), or one-hot vectors (..., V)."""
        if self.embedding is None:
            return F.one_hot(items, self.num_items).to(self.linear.weight.dtype)
        x = F.dropout(self._measured(self.embedding(items)), self.embedding_dropout, self.training)
        if self.training and self.item_dropout > 0:
            x = x * (torch.rand_like(x[..., :1]) >= self.item_dropout)
        return x

    def score(self, h: Tensor, items: Tensor) -> Tensor:
        """Return the logits (..., V) for the highest layer's output (..., H) after it has read the items (...)."""
        weight, bias = self._rows()
        scores = F.linear(self.query(h), self._measured(weight), bias)
        if self.repeat is not None:
            assert isinstance(self.repeat, Tensor)
            again = items.unsqueeze(-1)
            scores = scores.scatter(-1, again, scores.gather(-1, again) + self.repeat.to(scores.dtype))
        return scores

    def query(self, h: Tensor) -> Tensor:
        """Return what the items' rows are multiplied by (..., D), for the highest layer's output (..., H)."""
        if self.head is not None:
            h = activate(self.activation, self.head(h))
        h = F.dropout(h, self.dropout, self.training)
        if self.bias is not None:  # tied
            h = self.linear(h)
        if self.scale is not None:
            assert isinstance(self.scale, Tensor)
            h = _with_length_1(h) * self.scale
        return h

    @torch.jit.unused
    def rows(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return what scores items (N,): rows (N, D), by which `query` is multiplied, and biases (N,) to be added."""
        weight, bias = self._rows()
        return self._measured(F.embedding(items, weight)), bias[items]

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Return the rows (V, D) and biases (V,) as they are stored."""
        if self.bias is not None:  # tied
            assert self.embedding is not None
            assert isinstance(self.bias, Tensor)
            return self.embedding.weight, self.bias
        return self.linear.weight, self.linear.bias

    def _measured(self, rows: Tensor) -> Tensor:
        """Return an item's rows (..., D) with the length 1 if `scale` asks for it."""
        if self.scale is None or self.rows_have_length_1:
            return rows
        return _with_length_1(rows)

    def like(self) -> Tensor:
        """Return a weight, for its dtype and device."""
        return self.linear.weight


def _with_length_1(rows: Tensor) -> Tensor:
    """Return rows (..., D) divided by their lengths; float16 can tell the smallest divisor from 0."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / lengths.clamp(min=1e-6)


def _checked_head(head_size: int | None, activation: str) -> dict[str, Any]:
    """Return what a configuration says of the layer between cells and scores: nothing if there is none."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if head_size is None:
        if activation != "none":
            raise ValueError(f"activation {activation!r} stands behind a head; give a head_size")
        return {}
    require_positive("head_size", head_size)
    return {"head_size": head_size, "activation": activation}


def _checked_recipe(
    embedding_dropout: float, item_dropout: float, scale: float | None, repeat_bias: bool
) -> dict[str, Any]:
    """Return what a configuration says of these: nothing where they do nothing."""
    require_dropout(embedding_dropout, "embedding_dropout")
    require_dropout(item_dropout, "item_dropout")
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"scale must be a number above 0, got {scale!r}")
    given = {
        "embedding_dropout": embedding_dropout,
        "item_dropout": item_dropout,
        "scale": scale,
        "repeat_bias": repeat_bias,
    }
    return {name: value for name, value in given.items() if value}
