"""Spectral initialisation: item embeddings from the transition matrix, token embeddings from the item × token matrix."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from metarec_spark.model.catalogue import Catalogue

LENGTH, NOISE = 0.5, 0.1
_OVERSAMPLING, _ITERATIONS = 16, 4


def spectral_init(catalogue: Catalogue, noise: np.ndarray, seed: int) -> np.ndarray:
    """Item embeddings, [I, D] float32, in which items with the same neighbours are close.

    They are the D leading eigenvectors of each domain's symmetric, degree-normalised transition matrix, scaled by the roots of
    their eigenvalues and then to rows of length ``LENGTH``, plus ``NOISE`` times the noise. Items without a transition in their
    domain get the noise alone.

    Parameters
    ----------
    noise
        [I, D] float32: the usual random initialisation.
    seed
        Seed of the random projection.
    """
    embeddings = noise.copy()
    for domain, items in enumerate(catalogue.of_domain):
        leading = _leading(_adjacency(catalogue, domain), noise.shape[1], np.random.default_rng([seed, domain]))
        embeddings[items] = _with_noise(leading, noise[items])
    return embeddings


def token_init(catalogue: Catalogue, noise: np.ndarray, seed: int) -> np.ndarray:
    """Token embeddings, [V, D] float32, in which tokens of the same items are close.

    As :func:`spectral_init`, of the matrix of dot products of the tokens' weights over all items, each token scaled to length 1.
    Items without events count too: a new domain's items shape the token embeddings that all domains share.

    Parameters
    ----------
    noise
        [V, D] float32: the usual random initialisation.
    seed
        Seed of the random projection.
    """
    size, width = catalogue.tokens.shape
    entries = catalogue.weights.ravel(), (np.repeat(np.arange(size), width), catalogue.tokens.ravel())
    weights = sparse.csr_matrix(entries, (size, len(noise)))
    length = np.sqrt(np.asarray(weights.multiply(weights).sum(0)).ravel())
    weights = (weights @ sparse.diags(np.where(length > 0, 1 / np.maximum(length, 1e-12), 0.0))).tocsr().astype(np.float32)
    shared = aslinearoperator(weights.T) @ aslinearoperator(weights)
    return _with_noise(_leading(shared, noise.shape[1], np.random.default_rng([seed])), noise)


def _with_noise(embedding: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Rows scaled to ``LENGTH``, plus ``NOISE`` times the noise; a row of zeros becomes the noise alone."""
    norm = np.linalg.norm(embedding, axis=1, keepdims=True)
    known = norm > 1e-6
    return np.where(known, embedding * (LENGTH / np.where(known, norm, 1.0)) + NOISE * noise, noise).astype(np.float32)


def _adjacency(catalogue: Catalogue, domain: int) -> sparse.csr_matrix:
    """The domain's symmetric transition matrix, divided by the roots of the degrees of row and column."""
    pairs, items = catalogue.successors, catalogue.of_domain[domain]
    whole = sparse.csr_matrix((pairs.forward + pairs.backward, pairs.indices, pairs.indptr), shape=(catalogue.size,) * 2)
    inside = whole[items][:, items]
    both = inside + inside.T
    degree = np.asarray(both.sum(1)).ravel()
    scale = sparse.diags(np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1e-12)), 0.0))
    return (scale @ both @ scale).tocsr().astype(np.float32)


def _leading(matrix: sparse.csr_matrix | LinearOperator, dim: int, random: np.random.Generator) -> np.ndarray:
    """Leading eigenvectors of a symmetric matrix times the roots of their eigenvalues, [I, dim].

    By randomised subspace iteration (Halko, Martinsson & Tropp, 2011); columns without a positive eigenvalue are 0.
    """
    size = matrix.shape[0]
    basis = random.standard_normal((size, min(size, dim + _OVERSAMPLING))).astype(np.float32)
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(matrix @ basis)
    small = basis.T @ (matrix @ basis)
    value, vector = np.linalg.eigh((small + small.T) / 2)
    largest = np.argsort(-value)[:dim]
    embedding = np.zeros((size, dim), np.float32)
    embedding[:, : len(largest)] = (basis @ vector[:, largest]) * np.sqrt(np.maximum(value[largest], 0))
    return embedding
