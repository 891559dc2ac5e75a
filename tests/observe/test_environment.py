"""The environment is plain JSON and holds no more than what it names."""

import json

from albert_jax.observe import environment


def test_describe_is_plain_and_complete(monkeypatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2hunter2")
    told = environment.describe()
    text = json.dumps(told)
    assert "hunter2" not in text
    assert told["flags"] == {
        **told["flags"],  # type: ignore[dict-item]
        "XLA_FLAGS": "--xla_cpu_enable_fast_math=false",
    }
    packages = told["packages"]
    assert isinstance(packages, dict) and {"jax", "numpy", "flax"} <= set(packages)
    assert told["devices"] >= 1 and told["threads"] >= 1  # type: ignore[operator]
    assert environment.describe() == told
