"""f, the base model: a pre-norm Transformer over a user's mixed sequence, with tied item vectors and cosine scores.

Shape suffixes: B sequences, L positions, D width, N items or events in a flat list, A tokens an item.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarec_spark.config import Model
from metarec_spark.model.catalogue import Catalogue


@dataclass(frozen=True)
class Contexts:
    """Padded sequences; event l of sequence b counts where l < length[b]."""

    item: Tensor
    """[B, L] int64 item indexes, 0 for padding."""
    domain: Tensor
    """[B, L] int64."""
    event_type: Tensor
    """[B, L] int64."""
    gap: Tensor
    """[B, L] int64 log-bucketed seconds since the event before."""
    length: Tensor
    """[B] int64."""


@dataclass(frozen=True)
class Shape:
    """Sizes that follow from the data."""

    domains: int
    event_types: int
    gaps: int
    max_length: int


class NextItemModel(nn.Module):
    """Scores the next item of a domain by scale · cosine(user vector, item vector).

    An item's vector is its id embedding plus the weighted sum of its tokens' embeddings; the same vectors are the input
    (without normalisation) and the output. A user's vector for a domain is the last hidden state plus the domain's query.
    Positions count from the start of the sequence.
    """

    def __init__(self, settings: Model, shape: Shape, catalogue: Catalogue) -> None:
        super().__init__()
        dim = settings.dim
        self.scale = settings.scale
        self.item = nn.Embedding(catalogue.size, dim)
        self.token = nn.Embedding(len(catalogue.token_hashes), dim, padding_idx=0)
        self.position = nn.Embedding(shape.max_length, dim)
        self.domain = nn.Embedding(shape.domains, dim)
        self.event_type = nn.Embedding(shape.event_types + 1, dim)
        self.gap = nn.Embedding(shape.gaps, dim)
        self.query = nn.Embedding(shape.domains, dim)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(dim, settings.heads, settings.dropout) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("tokens_NA", torch.as_tensor(catalogue.tokens, dtype=torch.int64), persistent=False)
        self.register_buffer("weights_NA", torch.as_tensor(catalogue.weights), persistent=False)
        for embedding in (self.item, self.token, self.position, self.domain, self.event_type, self.gap, self.query):
            nn.init.normal_(embedding.weight, std=dim**-0.5)
        nn.init.zeros_(self.query.weight)
        with torch.no_grad():
            self.token.weight[0] = 0

    def item_vectors(self, item_N: Tensor) -> Tensor:
        """Vectors of items before normalisation, [N, D]."""
        content_ND = F.embedding_bag(
            self.tokens_NA[item_N], self.token.weight, per_sample_weights=self.weights_NA[item_N], mode="sum", padding_idx=0
        )
        return self.item(item_N) + content_ND

    def hidden(self, contexts: Contexts) -> Tensor:
        """State after each event, [B, L, D]; positions past a sequence's length hold no meaning."""
        B, L = contexts.item.shape
        x_BLD = self.item_vectors(contexts.item.reshape(-1)).view(B, L, -1)
        x_BLD = (
            x_BLD
            + self.position.weight[:L]
            + self.domain(contexts.domain)
            + self.event_type(contexts.event_type)
            + self.gap(contexts.gap)
        )
        x_BLD = self.dropout(x_BLD)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return x_BLD

    def user_vectors(self, hidden_ND: Tensor, domain_N: Tensor) -> Tensor:
        """Vectors, of length 1, that point at the next item of a domain; [N, D]."""
        return F.normalize(self.norm(hidden_ND + self.query(domain_N)), dim=-1)

    def encode(self, contexts: Contexts, domain_B: Tensor) -> Tensor:
        """User vectors after the last event of each sequence, for one domain each; [B, D]."""
        last_B = (contexts.length - 1).clamp(min=0)
        hidden_BLD = self.hidden(contexts)
        return self.user_vectors(hidden_BLD[torch.arange(len(last_B)), last_B], domain_B)

    @torch.no_grad()
    def catalogue_vectors(self, block: int = 65_536) -> Tensor:
        """Normalised vectors of all items, [I, D]."""
        items = torch.arange(self.item.num_embeddings).split(block)
        return torch.cat([F.normalize(self.item_vectors(part), dim=-1) for part in items])


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to its input."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        qkv = self.qkv(self.attention_norm(x_BLD)).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        mixed_BLD = F.scaled_dot_product_attention(*qkv, is_causal=True).transpose(1, 2).reshape(B, L, D)
        x_BLD = x_BLD + self.dropout(self.out(mixed_BLD))
        return x_BLD + self.dropout(self.feed(self.feed_norm(x_BLD)))
