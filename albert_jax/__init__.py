"""ALBERT (Lan et al. 2019) in JAX: pretraining, evaluation, export, fine-tuning.

The public names are those of `albert_jax.api`, which is imported when one of them is first used,
so importing the package loads nothing heavy.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from albert_jax.version import __version__ as __version__

if TYPE_CHECKING:
    from albert_jax.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """A public name, imported on first use."""
    if name == "__all__":
        return __dir__()
    # Python asks for a submodule here before it imports it, which must not load the public names.
    if not name.startswith("_") and importlib.util.find_spec(f"albert_jax.{name}") is None:
        api = importlib.import_module("albert_jax.api")
        if name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module 'albert_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(["__version__", *importlib.import_module("albert_jax.api").__all__])
