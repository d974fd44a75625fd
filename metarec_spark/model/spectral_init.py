"""A start for embeddings: of items, the spectrum of who follows whom; of tokens, that of which items have them."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from metarec_spark.model.catalogue import Catalogue

LENGTH, NOISE = 0.5, 0.1
_OVERSAMPLING, _ITERATIONS = 16, 4


def spectral_init(catalogue: Catalogue, noise: np.ndarray, seed: int) -> np.ndarray:
    """Embeddings, [I, D] float32: items that are followed by the same items lie close.

    Of each domain's symmetric, degree-normalised transition matrix the strongest D eigenvectors, times the roots of their
    eigenvalues, each row of length ``LENGTH``; and ``NOISE`` times the noise. Items without a transition in their domain keep
    the noise alone.

    Parameters
    ----------
    noise
        [I, D] float32 usual random start.
    seed
        Of the random projection.
    """
    start = noise.copy()
    for domain, items in enumerate(catalogue.of_domain):
        embedding = _strongest(_adjacency(catalogue, domain), noise.shape[1], np.random.default_rng([seed, domain]))
        start[items] = _started(embedding, noise[items])
    return start


def token_init(catalogue: Catalogue, noise: np.ndarray, seed: int) -> np.ndarray:
    """Embeddings, [V, D] float32: tokens that the same items have lie close.

    As :func:`spectral_init`, of the scalar products of the tokens' weights over all items, each token's scaled to length 1.
    Items count whether anybody had an event with them or not: what a new domain's items say shapes what all domains share.

    Parameters
    ----------
    noise
        [V, D] float32 usual random start.
    seed
        Of the random projection.
    """
    size, width = catalogue.tokens.shape
    entries = catalogue.weights.ravel(), (np.repeat(np.arange(size), width), catalogue.tokens.ravel())
    weights = sparse.csr_matrix(entries, (size, len(noise)))
    length = np.sqrt(np.asarray(weights.multiply(weights).sum(0)).ravel())
    weights = (weights @ sparse.diags(np.where(length > 0, 1 / np.maximum(length, 1e-12), 0.0))).tocsr().astype(np.float32)
    shared = aslinearoperator(weights.T) @ aslinearoperator(weights)
    return _started(_strongest(shared, noise.shape[1], np.random.default_rng([seed])), noise)


def _started(embedding: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Each row brought to ``LENGTH``, with ``NOISE`` times the noise; where there is nothing, the noise alone."""
    norm = np.linalg.norm(embedding, axis=1, keepdims=True)
    known = norm > 1e-6
    return np.where(known, embedding * (LENGTH / np.where(known, norm, 1.0)) + NOISE * noise, noise).astype(np.float32)


def _adjacency(catalogue: Catalogue, domain: int) -> sparse.csr_matrix:
    part, items = catalogue.successors, catalogue.of_domain[domain]
    whole = sparse.csr_matrix((part.forward + part.backward, part.indices, part.indptr), shape=(catalogue.size,) * 2)
    inside = whole[items][:, items]
    both = inside + inside.T
    degree = np.asarray(both.sum(1)).ravel()
    scale = sparse.diags(np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1e-12)), 0.0))
    return (scale @ both @ scale).tocsr().astype(np.float32)


def _strongest(matrix: sparse.csr_matrix | LinearOperator, dim: int, random: np.random.Generator) -> np.ndarray:
    """Eigenvectors of a symmetric matrix times the roots of their eigenvalues, [I, dim], by randomised subspace iteration
    (Halko, Martinsson & Tropp, 2011); columns without a positive eigenvalue are 0."""
    size = matrix.shape[0]
    basis = random.standard_normal((size, min(size, dim + _OVERSAMPLING))).astype(np.float32)
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(matrix @ basis)
    small = basis.T @ (matrix @ basis)
    value, vector = np.linalg.eigh((small + small.T) / 2)
    strongest = np.argsort(-value)[:dim]
    found = np.zeros((size, dim), np.float32)
    found[:, : len(strongest)] = (basis @ vector[:, strongest]) * np.sqrt(np.maximum(value[strongest], 0))
    return found
