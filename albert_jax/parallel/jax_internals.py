"""The names of JAX without a public equivalent in jax 0.10, in one place."""

from __future__ import annotations

from typing import Any

import jax
from jax._src import distributed
from jax._src.clusters import ClusterEnv


def coordination_client() -> Any:
    """The client of the coordination service's key-value store; None without jax.distributed."""
    return distributed.global_state.client


def process_index() -> int:
    """As jax.process_index, but without touching a device."""
    return distributed.global_state.process_id


def process_count() -> int:
    """As jax.process_count, but without touching a device."""
    return distributed.global_state.num_processes


def detect_job() -> tuple[str, int, int] | None:
    """(kind, number of processes, index of this one) of the job around this process.

    None if JAX recognizes no SLURM, Cloud TPU or GKE job with several processes.
    """
    on_cpu = getattr(jax.config, "jax_platforms", None) == "cpu"
    kinds = ("slurm",) if on_cpu else ("slurm", "gcetpu", "gketpu")
    for cluster in ClusterEnv._cluster_types:
        try:
            if cluster.name in kinds and cluster.is_env_present():
                if (count := cluster.get_process_count()) > 1:
                    return cluster.name, count, cluster.get_process_id()
        except Exception:  # noqa: BLE001  # A notebook's TPU has no metadata server.
            continue
    return None
