"""Random numbers that depend on nothing but their key.

A draw is a hash of integers, such as the run's seed, the purpose, the step and the row. So it is
the same on every host, in every worker and after every restart, and there is no state to save.
The hash is the finalizer of SplitMix64 (Steele, Lea and Flood 2014, with Stafford's variant 13
of the constants), applied once for each part of the key.
"""

from __future__ import annotations

import numpy as np

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(x: np.ndarray) -> np.ndarray:
    """Bijective scrambling of uint64, in place."""
    shifted = x >> np.uint64(30)
    x ^= shifted
    x *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(x, np.uint64(27), out=shifted)
    x ^= shifted
    x *= np.uint64(0x94D049BB133111EB)
    np.right_shift(x, np.uint64(31), out=shifted)
    x ^= shifted
    return x


def key(*parts: int) -> int:
    """A 64-bit key made of integers (taken modulo 2^64), whose order matters."""
    state = 0
    for part in parts:
        state = (state ^ (part & _MASK)) + _GAMMA & _MASK
        state ^= state >> 30
        state = state * 0xBF58476D1CE4E5B9 & _MASK
        state ^= state >> 27
        state = state * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def bits(keys: int | np.ndarray, counters: np.ndarray | int) -> np.ndarray:
    """64 random bits for each (key, counter) pair, broadcast against each other, as uint64."""
    base = np.atleast_1d(np.asarray(keys, dtype=np.uint64))
    steps = np.atleast_1d(counters).astype(np.uint64)
    return _mix((steps + np.uint64(1)) * np.uint64(_GAMMA) + base)


def below(random_bits: np.ndarray, limits: np.ndarray | int) -> np.ndarray:
    """Uniform integers in [0, limit), int64, from the upper 32 of the bits; limit below 2^31."""
    limit = np.asarray(limits).astype(np.uint64)
    return ((random_bits >> np.uint64(32)) * limit >> np.uint64(32)).astype(np.int64)


def uniform(random_bits: np.ndarray) -> np.ndarray:
    """Uniform float64 in [0, 1) from the upper 53 of the bits."""
    return (random_bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key_: int, size: int) -> np.ndarray:
    """A random order of range(size), int64."""
    # The hash is a bijection, so no two values are equal and every sort yields the same order.
    return np.argsort(bits(key_, np.arange(size)))
