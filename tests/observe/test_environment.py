"""The environment is plain JSON and holds no more than what it names."""

import json

import jax
import pytest

from albert_jax.errors import ConfigError
from albert_jax.observe import environment


def test_describe_is_plain_and_complete(monkeypatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2hunter2")
    description = environment.describe()
    text = json.dumps(description)
    assert "hunter2" not in text
    assert description["flags"] == {
        **description["flags"],  # type: ignore[dict-item]
        "XLA_FLAGS": "--xla_cpu_enable_fast_math=false",
    }
    packages = description["packages"]
    assert isinstance(packages, dict) and {"jax", "numpy", "flax"} <= set(packages)
    assert description["devices"] >= 1 and description["threads"] >= 1  # type: ignore[operator]
    assert environment.describe() == description


def test_an_offset_of_all_seeds_is_refused(monkeypatch) -> None:
    """It would change dropout, and the record would not say so."""
    environment.refuse_seed_offset()
    jax.config.update("jax_random_seed_offset", 7)
    try:
        with pytest.raises(ConfigError, match="JAX_RANDOM_SEED_OFFSET is 7, .*: unset it"):
            environment.refuse_seed_offset()
    finally:
        jax.config.update("jax_random_seed_offset", 0)
