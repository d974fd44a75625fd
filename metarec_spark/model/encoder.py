"""The sequence encoder (f): a pre-norm Transformer over a user's sequence on all domains, with tied item vectors.

Sequences are packed: their events lie one after another in flat tensors, and padding is computed in the attention alone.
Shape suffixes: B sequences, N events or items in a flat list, L positions, D width, R rows of a table, A tokens an item.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarec_spark.config.sections import Model
from metarec_spark.model.catalogue import Catalogue
from metarec_spark.model.packed import PackedSequences


@dataclass(frozen=True)
class Shape:
    """Sizes of the network that follow from the data."""

    domains: int
    event_types: int
    gaps: int
    max_length: int


class NextItemModel(nn.Module):
    """Scores the next item of a domain by scale · cosine(user vector, item vector).

    An item's vector is its id embedding plus its content: the weighted sum of its tokens' embeddings, the projection of its given
    vector, and, if there is a generator, what it generates from both. All domains share the content parameters. The same vectors
    are input (not normalised) and output. A user's vector for a domain is the last hidden state plus the domain's adapter: a
    query, and a low-rank map that starts at zero. Positions count from the start of the sequence.
    """

    tokens_IA: Tensor
    weights_IA: Tensor
    given_IW: Tensor
    has_content_I: Tensor
    trained_I: Tensor

    def __init__(self, settings: Model, shape: Shape, catalogue: Catalogue) -> None:
        super().__init__()
        dim = settings.dim
        self.cosine, self.gaps = settings.cosine, settings.time_gaps
        self.scale = settings.scale if settings.cosine else 1.0
        self.id_dropout = settings.id_dropout
        self.item = nn.Embedding(catalogue.size, dim)
        self.token = nn.Embedding(len(catalogue.token_hashes), dim)
        self.position = nn.Embedding(shape.max_length, dim)
        self.domain = nn.Embedding(shape.domains, dim)
        self.event_type = nn.Embedding(shape.event_types + 1, dim)
        self.gap = nn.Embedding(shape.gaps, dim)
        self.dropout = Dropout(settings.dropout)
        block = {"attention": Block, "recurrent": RecurrentBlock}[settings.state]
        self.blocks = nn.ModuleList(block(dim, settings.heads, settings.dropout) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Embedding(shape.domains, dim)
        self.adapter_in = nn.Parameter(torch.empty(shape.domains, dim, settings.adapter))
        self.adapter_out = nn.Parameter(torch.zeros(shape.domains, settings.adapter, dim))
        self.generator_in, self.generator_out = None, None
        if settings.generator:
            self.generator_in = nn.Parameter(torch.randn(dim, settings.generator) * dim**-0.5)
            self.generator_out = nn.Parameter(torch.zeros(settings.generator, dim))
        self.register_buffer("tokens_IA", torch.as_tensor(catalogue.tokens, dtype=torch.int64), persistent=False)
        self.register_buffer("weights_IA", torch.as_tensor(catalogue.weights), persistent=False)
        self.register_buffer("given_IW", torch.as_tensor(catalogue.vectors), persistent=False)
        self.register_buffer("has_content_I", torch.as_tensor(catalogue.has_content), persistent=False)
        self.register_buffer("trained_I", torch.as_tensor(catalogue.events > 0), persistent=False)
        for embedding in (self.item, self.token, self.position, self.domain, self.event_type, self.gap):
            nn.init.normal_(embedding.weight, std=dim**-0.5)
        nn.init.normal_(self.adapter_in, std=dim**-0.5)
        nn.init.zeros_(self.query.weight)
        self.projection = None
        if catalogue.vectors.shape[1]:
            self.projection = nn.Parameter(torch.randn(catalogue.vectors.shape[1], dim) * dim**-0.5)

    @property
    def tables(self) -> dict[str, nn.Parameter]:
        """The parameters with a row per item or token; a step touches few of their rows."""
        return {name: value for name, value in self.named_parameters() if name in ("item.weight", "token.weight")}

    @property
    def network(self) -> dict[str, nn.Parameter]:
        """All other parameters."""
        tables = self.tables
        return {name: value for name, value in self.named_parameters() if name not in tables}

    def content_alone(self, items_R: Tensor) -> Tensor:
        """Mask of the items whose id embedding is dropped, [R] bool; never of an item without content.

        In training, ``id_dropout`` draws them. In evaluation, they are the items without a training event: their id embeddings
        have only learned that nobody chose them.
        """
        if not self.training:
            dropped_R = ~self.trained_I[items_R]
        elif self.id_dropout:
            dropped_R = torch.rand(len(items_R)) < self.id_dropout
        else:
            dropped_R = torch.zeros(len(items_R), dtype=torch.bool)
        return dropped_R & self.has_content_I[items_R]

    def hidden(self, contexts: PackedSequences, vectors_ND: Tensor, newest_B: Tensor | None = None) -> Tensor:
        """Hidden state after each event, [N, D], from the vectors of the events' items.

        With ``newest_B``, positions of one event of each sequence, only the states after them, [B, D], at a fraction of the cost.
        """
        x_ND = vectors_ND + self.position(contexts.position) + self.domain(contexts.domain)
        x_ND = x_ND + self.event_type(contexts.plain_event_type)
        if self.gaps:
            x_ND = x_ND + self.gap(contexts.gap)
        x_ND = self.dropout(x_ND)
        layout = PaddedLayout.from_lengths(contexts.length)
        for block in self.blocks[:-1]:
            x_ND = block(x_ND, layout)
        return self.blocks[-1](x_ND, layout, newest_B)

    def user_vectors(self, hidden_ND: Tensor, domain: int) -> Tensor:
        """Query vectors for the next item of a domain, [N, D]; of length 1 if scores are cosines."""
        adapted_ND = hidden_ND + self.query.weight[domain] + hidden_ND @ self.adapter_in[domain] @ self.adapter_out[domain]
        return self.normalized(self.norm(adapted_ND))

    def normalized(self, vectors_ND: Tensor) -> Tensor:
        """Vectors as scores take them: of length 1, or unchanged if scores are dot products."""
        return F.normalize(vectors_ND, dim=-1) if self.cosine else vectors_ND

    def scores(self, user_BD: Tensor, vectors_ID: Tensor) -> Tensor:
        """f of every item for every user, [B, I]: the logits of the loss."""
        return self.scale * user_BD @ vectors_ID.T

    def encode(self, contexts: PackedSequences) -> Tensor:
        """Hidden state after the last event of each sequence, [B, D]; zeros for a sequence without events."""
        last_BD = self.item.weight.new_zeros(len(contexts.length), self.item.embedding_dim)
        filled = contexts.length > 0
        if filled.any():
            rows = TouchedRows(self, contexts.item.unique())
            events = contexts.take(filled.nonzero().squeeze(1))
            last_BD[filled] = self.hidden(events, rows.vectors(events.item), events.starts + events.length - 1)
        return last_BD

    @torch.no_grad()
    def catalogue_vectors(self, block: int = 65_536, first: int = 0) -> Tensor:
        """Vectors of all items from ``first`` on, as scores take them, [I - first, D]."""
        items = torch.arange(first, self.item.num_embeddings).split(block)
        return torch.cat([self.normalized(TouchedRows(self, part).vectors_RD) for part in items])


class TouchedRows:
    """The rows of the item and token tables that some items need, as leaves of the gradient.

    The cost of a step grows with these rows, not with the tables.
    """

    def __init__(self, model: NextItemModel, items_R: Tensor) -> None:
        self.items_R = items_R
        """Indexes of the items, ascending, each once."""
        weights_RA = model.weights_IA[items_R]
        has_RA = weights_RA > 0
        token_N, first_R = model.tokens_IA[items_R][has_RA], has_RA.sum(1).cumsum(0) - has_RA.sum(1)
        if model.token.num_embeddings <= token_N.numel():  # for a small vocabulary, marks are cheaper than sorting
            used = torch.zeros(model.token.num_embeddings, dtype=torch.bool)
            used[token_N] = True
            self.tokens_T, position_N = used.nonzero().squeeze(1), (used.cumsum(0) - 1)[token_N]
        else:
            self.tokens_T, position_N = token_N.unique(return_inverse=True)
        self.item_RD = model.item.weight.detach()[items_R].requires_grad_(torch.is_grad_enabled())
        self.token_TD = model.token.weight.detach()[self.tokens_T].requires_grad_(torch.is_grad_enabled())
        weights_N = weights_RA[has_RA].to(self.token_TD.dtype)
        content_RD = F.embedding_bag(position_N, self.token_TD, first_R, per_sample_weights=weights_N, mode="sum")
        if model.projection is not None:
            content_RD = content_RD + model.given_IW[items_R] @ model.projection
        if model.generator_in is not None and model.generator_out is not None:
            content_RD = content_RD + F.gelu(content_RD @ model.generator_in) @ model.generator_out
        dropped_R = model.content_alone(items_R)
        id_RD = self.item_RD.masked_fill(dropped_R[:, None], 0.0) if dropped_R.any() else self.item_RD
        self.vectors_RD = id_RD + content_RD
        """[R, D] vectors of the items, not normalised."""

    def vectors(self, item_N: Tensor) -> Tensor:
        """Vectors of items, [N, D], not normalised."""
        # By index_select: its gradient is added in a fixed order, that of [] in an order that depends on threads.
        return self.vectors_RD.index_select(0, torch.searchsorted(self.items_R, item_N))

    @property
    def table_rows(self) -> dict[str, Tensor]:
        """Touched rows by table, ascending, each once."""
        return {"item.weight": self.items_R, "token.weight": self.tokens_T}

    def touched(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Touched rows and their gradients by table."""
        gradients = {"item.weight": _gradient(self.item_RD), "token.weight": _gradient(self.token_TD)}
        return {name: (rows, gradients[name]) for name, rows in self.table_rows.items()}


def _gradient(leaf: Tensor) -> Tensor:
    if leaf.grad is None:
        raise RuntimeError("the loss does not depend on the rows of a table")
    return leaf.grad


def summed(rows: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending unique rows of [R] rows, and the sums of their [R, D] gradients."""
    unique, position = rows.unique(return_inverse=True)
    return unique, gradients.new_zeros(len(unique), gradients.shape[1]).index_add_(0, position, gradients)


@dataclass(frozen=True)
class PaddedLayout:
    """Positions of packed events in the padded layout of the attention."""

    position_BL: Tensor
    """[B, L] position of each event in the packed list; any position for padding."""
    is_event_BL: Tensor
    """[B, L] whether there is an event."""

    @classmethod
    def from_lengths(cls, length_B: Tensor) -> PaddedLayout:
        """The layout of sequences of given lengths."""
        offset_L = torch.arange(int(length_B.max()) if len(length_B) else 0)
        is_event_BL = offset_L < length_B[:, None]
        starts_B = length_B.cumsum(0) - length_B
        return cls(torch.where(is_event_BL, starts_B[:, None] + offset_L, 0), is_event_BL)


class Dropout(nn.Module):
    """Dropout by uniform numbers, which a processor draws three times as fast as the Bernoulli numbers of torch's own."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return x
        mask = torch.rand(x.shape) >= self.probability
        return x * (mask * (1 / (1 - self.probability)))


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to its input."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self._make_mixer(dim)
        self.out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = Dropout(dropout)

    def _make_mixer(self, dim: int) -> None:
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x_ND: Tensor, layout: PaddedLayout, newest_B: Tensor | None = None) -> Tensor:
        """[N, D] → [N, D]; with ``newest_B``, positions of one event of each sequence, only their outputs, [B, D]."""
        normed_ND = self.attention_norm(x_ND)
        if newest_B is None:
            mixed_ND = self.mixed(normed_ND, layout)
        else:
            x_ND, mixed_ND = x_ND[newest_B], self.mixed_newest(normed_ND, layout, newest_B)
        x_ND = x_ND + self.dropout(self.out(mixed_ND))
        return x_ND + self.dropout(self.feed(self.feed_norm(x_ND)))

    def mixed(self, x_ND: Tensor, layout: PaddedLayout) -> Tensor:
        """Attention of each event over the events up to it in its sequence, [N, D]."""
        B, L = layout.position_BL.shape
        D = x_ND.shape[1]
        qkv_BL = self.qkv(x_ND)[layout.position_BL].view(B, L, 3, self.heads, D // self.heads)
        # Padding is at the end, where the causal mask hides it from every event.
        query, key, value = qkv_BL.permute(2, 0, 3, 1, 4).unbind(0)
        mixed_BHLD = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed_BHLD.transpose(1, 2).reshape(B, L, D)[layout.is_event_BL]

    def mixed_newest(self, x_ND: Tensor, layout: PaddedLayout, newest_B: Tensor) -> Tensor:
        """As :meth:`mixed`, for one event a sequence, [B, D].

        Keys and values are not computed: (W_k x)ᵀ q = xᵀ (W_kᵀ q) and Σ a W_v x = W_v Σ a x; the softmax cancels the keys' bias.
        """
        (B, L), D, H = layout.position_BL.shape, x_ND.shape[1], self.heads
        query, key, value = self.qkv.weight.view(3, H, D // H, D)
        bias_3D = self.qkv.bias.view(3, D)
        query_BHd = F.linear(x_ND[newest_B], query.reshape(D, D), bias_3D[0]).view(B, H, D // H)
        query_BHD = (query_BHd.transpose(0, 1) @ key).transpose(0, 1)
        x_BLD = x_ND[layout.position_BL]
        later_BL = torch.arange(L) > (newest_B - layout.position_BL[:, 0])[:, None]
        logits_BHL = query_BHD @ x_BLD.transpose(1, 2) * (D // H) ** -0.5
        share_BHL = logits_BHL.masked_fill(later_BL[:, None], -torch.inf).softmax(2)
        seen_HBD = (share_BHL @ x_BLD).transpose(0, 1)
        return (seen_HBD @ value.transpose(1, 2)).transpose(0, 1).reshape(B, D) + bias_3D[2]


class RecurrentBlock(Block):
    """A block with a gated recurrent unit (Cho et al., 2014) in place of attention: a learned update of the state by each event.

    It has no heads.
    """

    def _make_mixer(self, dim: int) -> None:
        self.rule = nn.GRUCell(dim, dim)

    def mixed(self, x_ND: Tensor, layout: PaddedLayout) -> Tensor:
        state_BD, states = x_ND.new_zeros(len(layout.position_BL), x_ND.shape[1]), []
        for x_BD in x_ND[layout.position_BL].unbind(1):
            state_BD = self.rule(x_BD, state_BD)
            states.append(state_BD)
        return torch.stack(states, 1)[layout.is_event_BL] if states else x_ND

    def mixed_newest(self, x_ND: Tensor, layout: PaddedLayout, newest_B: Tensor) -> Tensor:
        return self.mixed(x_ND, layout)[newest_B]
