"""Which parameter set each pass of the encoder uses: the whole of ALBERT's sharing, as tables.

A pass is one application of attention and feed-forward network. Passes run layer by layer, and
inside a layer through its inner blocks, so there are layers x inner blocks of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from albert_jax.config import ModelConfig


@dataclass(frozen=True)
class Sharing:
    """Tables from pass to parameter set, one per kind of sublayer."""

    attention: tuple[int, ...]
    ffn: tuple[int, ...]

    def __len__(self) -> int:
        """Number of passes."""
        return len(self.attention)


def sets(config: ModelConfig) -> tuple[int, int]:
    """How many parameter sets the (attention, feed-forward) sublayers have."""
    shared = config.num_hidden_groups * config.inner_group_num
    own = config.num_hidden_layers * config.inner_group_num
    return (
        shared if config.sharing in ("all", "attention") else own,
        shared if config.sharing in ("all", "ffn") else own,
    )


def table(config: ModelConfig, layers: int | None = None) -> Sharing:
    """The tables for a number of layers (default: the config's).

    A shared sublayer can be applied at any depth; one with a set per pass only up to the depth
    it has sets for (ValueError beyond).
    """
    layers = config.num_hidden_layers if layers is None else layers
    inner, groups = config.inner_group_num, config.num_hidden_groups
    if layers < 1:
        raise ValueError(f"an encoder needs at least one layer, not {layers}")
    if config.sharing != "all" and layers > config.num_hidden_layers:
        raise ValueError(
            f"sharing {config.sharing!r} has parameters for {config.num_hidden_layers} layers, "
            f"not {layers}"
        )
    num_layers = [(layer, block) for layer in range(layers) for block in range(inner)]
    # The quotient is rounded in floating point, like the original's: exact integer division
    # puts some layers of deep models with many groups into another group.
    shared = tuple(int(layer / layers * groups) * inner + block for layer, block in num_layers)
    own = tuple(range(len(num_layers)))
    return Sharing(
        attention=shared if config.sharing in ("all", "attention") else own,
        ffn=shared if config.sharing in ("all", "ffn") else own,
    )
