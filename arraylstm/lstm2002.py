"""LSTM2002: the language model of peephole LSTM layers, with the interface of language-model-playground."""

import argparse
import inspect
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol, no_type_check

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arraylstm.cells.lstm2002 import LSTM2002Layer, for_each_row
from arraylstm.checks import require_dropout, require_positive
from arraylstm.model import ItemModel
from arraylstm.stack import Stack
from arraylstm.vocabulary import Vocabulary, require_labels

PAD, UNK = 2, 3  # the playground's ids: bos 0, eos 1, pad 2, unk 3

OPTIONS = {
    "d_blk": "Cells in a memory block.",
    "d_emb": "Width of the token embedding.",
    "init_fb": "Upper bound of the forget gates' biases at the start.",
    "init_ib": "Lower bound of the input gates' biases at the start.",
    "init_lower": "Lower bound of all other weights at the start.",
    "init_ob": "Lower bound of the output gates' biases at the start.",
    "init_upper": "Upper bound of all other weights at the start.",
    "label_smoothing": "Share of the target's probability that the loss spreads over all tokens.",
    "n_blk": "Memory blocks in a layer.",
    "n_lyr": "Layers.",
    "p_emb": "Probability of zeroing an embedding's feature in training.",
    "p_hid": "Probability of zeroing a hidden feature in training.",
}

SIZES = ("cell", "num_items", "d_blk", "d_emb", "n_blk", "n_lyr")
"""The entries of a configuration on which answers depend."""


class Tokenizer(Protocol):
    """What the model needs of a tokenizer; one with labels also has `id2tk`, which maps ids to tokens."""

    @property
    def vocab_size(self) -> int:
        """V."""


class LSTM2002(ItemModel):
    """Predict the next token of a text: embedding, fully connected layer, LSTM2002 layers, and back to the embedding.

    E is the embedding matrix `emb.weight`, z_0 to z_L have width D = n_blk * d_blk, and dropout acts in training only:

        z_0    = dropout_hid(tanh(W_h dropout_emb(E[token]) + b_h))      `fc_e2h`
        z_l    = dropout_hid(LSTM2002Layer_l(z_{l-1}))                   `stack_rnn`, layers "0", "2", "4", ...
        logits = E dropout_hid(tanh(W_z z_L + b_z))                      `fc_h2e`

    The state dict is the playground's. These things differ on purpose: `init_ib` reaches the layers; `params_init`
    leaves the padding token's embedding zero; `pred` has no dropout in train() either; the loss of padding alone is 0,
    not NaN; a sequence may be empty; it scripts; unknown arguments are refused; and `stack_rnn` holds the layers by
    name, without dropout modules between them. Padding is as in the playground: it does not count as a target, and
    looking it up trains nothing; but it is a token with a score, and that score trains its embedding away from zero.

    `forward`, `pred` and `cal_loss` return detached states, c of all layers and h of all layers, as the playground's
    do. `unroll` and `step` are those of every `ItemModel`: they take and return c and h of each layer in turn, and
    gradients pass through them. Without states all start from the layers' buffers `c_0` and `h_0`, which are zero
    unless set. A scripted model lacks `pred` and `cal_loss`.

    Args:
        tknzr: a tokenizer with `vocab_size`, V, and, for labels, `id2tk`; or a Vocabulary. Its ids 0 to 3 stand for the
            begin, the end, padding and an unknown token.
        d_blk: cells in a memory block.
        d_emb: width of the token embedding.
        init_fb: upper bound of the forget gates' biases as `params_init` draws them.
        init_ib: lower bound of the input gates' biases.
        init_lower: lower bound of all other weights.
        init_ob: lower bound of the output gates' biases.
        init_upper: upper bound of all other weights.
        label_smoothing: share of the target's probability that `cal_loss` spreads over all tokens.
        n_blk: memory blocks in a layer.
        n_lyr: layers.
        p_emb: probability of zeroing an embedding's feature in training.
        p_hid: probability of zeroing a feature of any later layer's output in training.

    Raises:
        ValueError: a size is smaller than 1, a tokenizer without room for the four special ids, a dropout outside
            [0, 1), or a label smoothing outside [0, 1].
    """

    model_name: ClassVar[str] = "LSTM-2002"

    d_blk: int
    d_emb: int
    d_hid: int
    init_fb: float
    init_ib: float
    init_lower: float
    init_ob: float
    init_upper: float
    label_smoothing: float
    n_blk: int
    n_lyr: int
    p_emb: float
    p_hid: float

    def __init__(
        self,
        *,
        tknzr: Tokenizer | Vocabulary,
        d_blk: int = 1,
        d_emb: int = 1,
        init_fb: float = 1.0,
        init_ib: float = -1.0,
        init_lower: float = -0.1,
        init_ob: float = -1.0,
        init_upper: float = 0.1,
        label_smoothing: float = 0.0,
        n_blk: int = 1,
        n_lyr: int = 1,
        p_emb: float = 0.0,
        p_hid: float = 0.0,
    ) -> None:
        given = locals()
        options = {name: given[name] for name in OPTIONS}
        require_positive("d_emb", d_emb)
        require_positive("n_lyr", n_lyr)
        require_dropout(p_emb)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing!r}")
        num_items, vocabulary = read_tokens(tknzr)
        initial = {name: options[name] for name in options if name.startswith("init_")}
        d_hid = n_blk * d_blk
        layers = [LSTM2002Layer(d_blk=d_blk, in_feat=d_hid, n_blk=n_blk, **initial) for _ in range(n_lyr)]
        stack = Stack({str(2 * number): layer for number, layer in enumerate(layers)}, dropout=p_hid)
        super().__init__(stack, num_items, vocabulary, {"cell": "lstm2002", "num_items": num_items, **options})
        for name, value in options.items():
            setattr(self, name, value)
        self.d_hid, self.padding = d_hid, PAD
        self.emb = nn.Embedding(num_items, d_emb, padding_idx=PAD)
        self.fc_e2h = nn.Sequential(nn.Dropout(p_emb), nn.Linear(d_emb, d_hid), nn.Tanh(), nn.Dropout(p_hid))
        self.stack_rnn = stack
        self.fc_h2e = nn.Sequential(nn.Linear(d_hid, d_emb), nn.Tanh(), nn.Dropout(p_hid))

    @classmethod
    def from_config(cls, config: dict[str, Any], vocabulary: Vocabulary | None) -> "LSTM2002":
        """Construct the model that has this `config` and vocabulary.

        Raises:
            ValueError: a value that the constructor refuses, or a vocabulary of another size.
        """
        num_items = config["num_items"]
        require_labels(vocabulary, num_items)
        options = {name: value for name, value in config.items() if name not in ("cell", "num_items")}
        return cls(tknzr=vocabulary or SimpleNamespace(vocab_size=num_items), **options)

    def without_inert(self) -> dict[str, Any]:
        """Return `config` with the sizes alone: the other arguments are for drawing weights and for training."""
        return {name: value for name, value in self.config.items() if name in SIZES}

    @classmethod
    def add_CLI_args(cls, parser: argparse.ArgumentParser) -> None:  # noqa: N802 - the documented name
        """Give the parser an option for each of the constructor's arguments except `tknzr`, with the same defaults."""
        group = parser.add_argument_group("LSTM (2002 version) language model hyperparameters")
        signature = inspect.signature(cls)
        for name, text in OPTIONS.items():
            argument = signature.parameters[name]
            help = f"{text} Default: {argument.default}."
            group.add_argument(f"--{name}", type=argument.annotation, default=argument.default, help=help)

    @torch.no_grad()
    def params_init(self) -> None:
        """Draw all weights from U(init_lower, init_upper), layers by their own rule; padding's embedding is zero."""
        for weight in (self.emb.weight, *self.fc_e2h.parameters(), *self.fc_h2e.parameters()):
            nn.init.uniform_(weight, self.init_lower, self.init_upper)
        self.emb.weight[PAD] = 0
        for layer in self.stack_rnn.values():
            layer.params_init()  # type: ignore[operator]

    # -- the playground's interface ------------------------------------------------------------------------

    def forward(
        self, batch_cur_tkids: Tensor, batch_prev_states: tuple[list[Tensor], list[Tensor]] | None = None
    ) -> tuple[Tensor, tuple[list[Tensor], list[Tensor]]]:
        """Score the next token after every position.

        Args:
            batch_cur_tkids: (B, S) int64 ids in [0, V); B and S may be 0.
            batch_prev_states: every layer's c (B, n_blk, d_blk) and every layer's h (B, D); a state of one row serves
                all rows; None starts from the layers' buffers.

        Returns:
            logits (B, S, V), and c and h of every layer after the last token, detached.

        Raises:
            ValueError: ids or a state tensor has another shape or dtype, or there is not one of each for each layer.
            IndexError: an id lies outside [0, V).
        """
        state: list[Tensor] | None = None
        if batch_prev_states is not None:
            cs, hs = batch_prev_states
            if len(cs) != self.n_lyr or len(hs) != self.n_lyr:
                raise ValueError(f"states must be {self.n_lyr} of c and of h, got {len(cs)} and {len(hs)}")
            state = []
            for layer, (c, h) in enumerate(zip(cs, hs)):
                state.append(for_each_row(f"c_l{layer}", c, [batch_cur_tkids.size(0), self.n_blk, self.d_blk]))
                state.append(for_each_row(f"h_l{layer}", h, [batch_cur_tkids.size(0), self.d_hid]))
        logits, following = self.unroll(batch_cur_tkids, state, None)
        following = [tensor.detach() for tensor in following]
        return logits, (following[0::2], following[1::2])

    def cal_loss(
        self,
        batch_cur_tkids: Tensor,
        batch_next_tkids: Tensor,
        batch_prev_states: tuple[list[Tensor], list[Tensor]] | None = None,
    ) -> tuple[Tensor, tuple[list[Tensor], list[Tensor]]]:
        """Return the mean `loss` of the targets (B, S) without padding, 0 if there are none, and the states.

        Raises:
            ValueError: targets that are not shaped as the ids, or what `forward` raises it for.
            IndexError: an id or a target lies outside [0, V).
        """
        if batch_next_tkids.shape != batch_cur_tkids.shape:
            shapes = f"{list(batch_cur_tkids.shape)}, got {list(batch_next_tkids.shape)}"
            raise ValueError(f"batch_next_tkids must be shaped as batch_cur_tkids, {shapes}")
        logits, states = self(batch_cur_tkids, batch_prev_states)
        total = self.loss(logits.flatten(0, 1), batch_next_tkids.flatten())
        return total / (batch_next_tkids != PAD).sum().clamp(min=1), states

    @torch.no_grad()
    def pred(
        self, batch_cur_tkids: Tensor, batch_prev_states: tuple[list[Tensor], list[Tensor]] | None = None
    ) -> tuple[Tensor, tuple[list[Tensor], list[Tensor]]]:
        """Return the probabilities (B, S, V) of the next token, without dropout, and the states; see `forward`."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            logits, states = self(batch_cur_tkids, batch_prev_states)
        finally:
            for module, training in modes.items():
                module.training = training
        return logits.softmax(-1), states

    # -- the parts of an ItemModel ---------------------------------------------------------------------------

    @property
    @no_type_check
    def layers(self):  # noqa: ANN201
        """The stack of cells."""
        return self.stack_rnn

    def embed(self, items: Tensor) -> Tensor:
        """Return z_0 (..., D) for token ids (...)."""
        return self.fc_e2h(self.emb(items))  # type: ignore[no-any-return]

    def score(self, h: Tensor, items: Tensor) -> Tensor:
        """Return the logits (..., V) for the highest layer's output (..., D); the items (...) just read add nothing."""
        z = self.fc_h2e(F.dropout(h, self.p_hid, self.training))
        return F.linear(z, self.emb.weight)

    def like(self) -> Tensor:
        """Return a weight, for its dtype and device."""
        return self.emb.weight

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy with label smoothing, in nats, summed over the targets (N,) without padding."""
        smoothing = self.label_smoothing
        return F.cross_entropy(logits, targets, ignore_index=PAD, label_smoothing=smoothing, reduction="sum")


def read_tokens(tknzr: Tokenizer | Vocabulary) -> tuple[int, Vocabulary | None]:
    """Return the number of tokens, and their labels if the tokenizer has them."""
    num_items = len(tknzr) if isinstance(tknzr, Vocabulary) else tknzr.vocab_size
    if num_items <= UNK:
        raise ValueError(f"a tokenizer must have the four special ids 0 to {UNK}, got {num_items} tokens")
    if isinstance(tknzr, Vocabulary):
        return num_items, tknzr
    if not hasattr(tknzr, "id2tk"):
        return num_items, None
    labels = [tknzr.id2tk[id] for id in range(num_items)]
    return num_items, Vocabulary(labels, unknown=labels[UNK])
