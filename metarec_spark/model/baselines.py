"""Baselines that a trained model must beat: own items, item neighbours, EASE and ALS on one platform's user × item matrix.

None of them reads the order of events, except that own items count less with their age. Shape suffixes: U users that the
baselines are fitted on, B users that are scored, I items of the platform, K factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy import sparse

from metarec_spark import columns as c
from metarec_spark.model.packed import PackedSequences
from metarec_spark.model.ranking import local_indexes
from metarec_spark.model.repeats import own_events

EASE_ITEMS = 5_000
"""Largest platform for EASE, whose cost is cubic in the items: some seconds here."""
OWN_DECAY = 0.8
NEIGHBOURS, FACTORS = 256, 64
_EASE_REGULARISATION = 100.0
_ALS_CONFIDENCE, _ALS_REGULARISATION, _ALS_ROUNDS, _CG_STEPS = 3.0, 1.0, 10, 3
_ROWS = 1024


def user_item_matrix(user: np.ndarray, item: np.ndarray, items: np.ndarray) -> sparse.csr_matrix:
    """Return the binary user × item matrix of events, [U, I] float32; neither their order nor their number matters.

    Parameters
    ----------
    user, item
        User and item index of each event; users are rows in ascending order.
    items
        [I] ascending item indexes of the platform.
    """
    rows, row = np.unique(user, return_inverse=True)
    matrix = sparse.csr_matrix((np.ones(len(row), np.float32), (row, local_indexes(items, item))), (len(rows), len(items)))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


@dataclass(frozen=True)
class Baselines:
    """Fitted baselines of one platform."""

    popularity: np.ndarray
    """[I] float32 training events."""
    neighbours: sparse.csr_matrix
    """[I, I] cosine of two items' users."""
    als: np.ndarray
    """[I, K] float32 item factors."""
    ease: np.ndarray | None = None
    """[I, I] float32 item weights; None on a platform with more than ``EASE_ITEMS`` items."""

    @classmethod
    def fit(cls, users_UI: sparse.csr_matrix, popularity: np.ndarray) -> Baselines:
        """Fit to a binary user × item matrix."""
        small = users_UI.shape[1] <= EASE_ITEMS
        return cls(
            popularity.astype(np.float32),
            cosine_neighbours(users_UI, NEIGHBOURS),
            als(users_UI, FACTORS),
            ease(users_UI, _EASE_REGULARISATION) if small else None,
        )

    def scores(self, contexts: PackedSequences, domain: int, items: np.ndarray) -> dict[str, np.ndarray]:
        """Return each baseline's scores, [B, I] float32; users without an event on the platform get the popularity.

        Parameters
        ----------
        items
            [I] ascending item indices of the platform.
        """
        ages_BI = own_events(contexts, domain, items, OWN_DECAY)
        binary_BI = (ages_BI > 0).astype(np.float32)
        popular_BI = np.broadcast_to(self.popularity, ages_BI.shape).astype(np.float32)
        # Own items first, by decayed count; then the others by popularity, which is scaled to less than 1.
        own = ages_BI.toarray()
        by_baseline = {
            c.POPULARITY: popular_BI,
            c.OWN_ITEMS: np.where(own > 0, 1 + own, popular_BI / (1 + self.popularity.max(initial=0))).astype(np.float32),
            c.ITEM_NEIGHBOURS: (binary_BI @ self.neighbours).toarray(),
            c.ALS: als_half_step(binary_BI, self.als) @ self.als.T,
        }
        if self.ease is not None:
            by_baseline[c.EASE] = binary_BI @ self.ease
        empty_B = np.diff(binary_BI.indptr) == 0
        for scores_BI in by_baseline.values():
            scores_BI[empty_B] = self.popularity
        return by_baseline


def cosine_neighbours(users_UI: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """Return the cosine of each two items' sets of users, [I, I], the ``most`` largest of each row (Sarwar et al., 2001)."""
    norm = np.sqrt(np.maximum(np.asarray(users_UI.sum(0)).ravel(), 1))
    unit_UI = (users_UI @ sparse.diags(1 / norm)).tocsr().astype(np.float32)
    rows, transposed_IU = [], unit_UI.T.tocsr()
    for start in range(0, users_UI.shape[1], _ROWS):
        part = (transposed_IU[start : start + _ROWS] @ unit_UI).tocoo()
        other = part.col != part.row + start
        row, col, value = part.row[other], part.col[other], part.data[other]
        order = np.lexsort((col, -value, row))
        first = np.searchsorted(row[order], np.arange(part.shape[0]))
        best = order[np.arange(len(order)) - first[row[order]] < most]
        rows.append(sparse.csr_matrix((value[best], (row[best], col[best])), part.shape))
    return sparse.vstack(rows, "csr") if rows else sparse.csr_matrix((0, 0), dtype=np.float32)


def ease(users_UI: sparse.csr_matrix, regularisation: float) -> np.ndarray:
    """Return B = I - P · diag(1 / diag P) with P = (XᵀX + λ·1)⁻¹ and a zero diagonal, [I, I] float32 (Steck, 2019)."""
    gram = torch.from_numpy((users_UI.T @ users_UI).toarray().astype(np.float64))
    gram.diagonal().add_(regularisation)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = -inverse / inverse.diagonal()
    weights.fill_diagonal_(0)
    return weights.float().numpy()


def als(users_UI: sparse.csr_matrix, factors: int) -> np.ndarray:
    """Return item factors of implicit alternating least squares, [I, K] (Hu, Koren and Volinsky, 2008)."""
    random = np.random.default_rng(0)
    items_IK = (random.standard_normal((users_UI.shape[1], factors)) * 0.1).astype(np.float32)
    users_UK = np.zeros((users_UI.shape[0], factors), np.float32)
    items_IU = users_UI.T.tocsr()
    for _ in range(_ALS_ROUNDS):
        users_UK = als_half_step(users_UI, items_IK, users_UK)
        items_IK = als_half_step(items_IU, users_UK, items_IK)
    return items_IK


def als_half_step(rows: sparse.csr_matrix, fixed: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Return the factors of rows given the columns' factors, by conjugate gradients (Takács, Pilászy and Tikk, 2011).

    Solves (YᵀY + α Yᵀ_u Y_u + λ·1) x = (1 + α) Yᵀ_u 1 for each row u, Y_u being the factors of its entries.
    """
    shape = rows.shape[0], fixed.shape[1]
    x = np.zeros(shape, np.float32) if start is None else start.copy()
    shared = fixed.T @ fixed + _ALS_REGULARISATION * np.eye(shape[1], dtype=np.float32)
    row = np.repeat(np.arange(shape[0]), np.diff(rows.indptr))
    entries = sparse.csr_matrix((np.ones(rows.nnz, np.float32), rows.indices, rows.indptr), rows.shape)

    def product(v: np.ndarray) -> np.ndarray:
        dots = np.einsum("nk,nk->n", fixed[rows.indices], v[row])
        weighted = sparse.csr_matrix((_ALS_CONFIDENCE * dots, rows.indices, rows.indptr), rows.shape)
        return v @ shared + weighted @ fixed

    residual = (1 + _ALS_CONFIDENCE) * (entries @ fixed) - product(x)
    direction, square = residual.copy(), np.einsum("uk,uk->u", residual, residual)
    for _ in range(_CG_STEPS):
        applied = product(direction)
        step = square / np.maximum(np.einsum("uk,uk->u", direction, applied), 1e-12)
        x += step[:, None] * direction
        residual -= step[:, None] * applied
        following = np.einsum("uk,uk->u", residual, residual)
        direction = residual + (following / np.maximum(square, 1e-12))[:, None] * direction
        square = following
    return x.astype(np.float32)


def als_solution(rows: sparse.csr_matrix, fixed: np.ndarray) -> np.ndarray:
    """Return what :func:`als_half_step` approaches, [rows, K]; a row's factors are the same whatever rows stand beside it."""
    exact = fixed.astype(np.float64)
    shared = exact.T @ exact + _ALS_REGULARISATION * np.eye(fixed.shape[1])
    factors = np.zeros((rows.shape[0], fixed.shape[1]), np.float32)
    for row in np.flatnonzero(np.diff(rows.indptr)):
        own = exact[rows.indices[rows.indptr[row] : rows.indptr[row + 1]]]
        factors[row] = np.linalg.solve(shared + _ALS_CONFIDENCE * (own.T @ own), (1 + _ALS_CONFIDENCE) * own.sum(0))
    return factors


def save(baselines: list[Baselines], file: Path) -> None:
    """Write the baselines of all platforms, in their order."""
    tensors: dict[str, np.ndarray] = {}
    for domain, part in enumerate(baselines):
        tensors |= {f"{domain}.popularity": part.popularity, f"{domain}.als": part.als}
        tensors |= {f"{domain}.neighbours.{name}": getattr(part.neighbours, name) for name in ("data", "indices", "indptr")}
        tensors |= {f"{domain}.ease": part.ease} if part.ease is not None else {}
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, file)


def load(file: Path) -> list[Baselines]:
    """Read what :func:`save` wrote."""
    tensors = load_file(file)
    baselines: list[Baselines] = []
    while f"{len(baselines)}.popularity" in tensors:
        domain = len(baselines)
        popularity = tensors[f"{domain}.popularity"]
        parts = [tensors[f"{domain}.neighbours.{name}"] for name in ("data", "indices", "indptr")]
        neighbours = sparse.csr_matrix(tuple(parts), (len(popularity), len(popularity)))
        baselines.append(Baselines(popularity, neighbours, tensors[f"{domain}.als"], tensors.get(f"{domain}.ease")))
    return baselines
