"""The names of JAX without a public equivalent in jax 0.10, in one place."""

from __future__ import annotations

from typing import Any

import jax
from jax._src import distributed
from jax._src.clusters import ClusterEnv


def coordination_client() -> Any:
    """The client of the coordination service's key-value store; None without jax.distributed."""
    return distributed.global_state.client


def detect_cluster(kinds: tuple[str, ...]) -> tuple[str, int, int] | None:
    """(kind, number of processes, index of this one) of a job that JAX recognizes around it.

    None if there is no job of one of these kinds with several processes.
    """
    on_cpu = getattr(jax.config, "jax_platforms", None) == "cpu"
    for cluster in ClusterEnv._cluster_types:
        if cluster.name not in kinds or (on_cpu and cluster.name != "slurm"):
            continue
        try:
            if cluster.is_env_present() and cluster.get_process_count() > 1:
                return cluster.name, cluster.get_process_count(), cluster.get_process_id()
        except Exception:  # noqa: BLE001  # A notebook's TPU has no metadata server.
            continue
    return None
