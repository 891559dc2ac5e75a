"""The JobSets that launch/jobset.py renders, and the fields that a cluster knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# The part of JobSet v1alpha2 (and of the Job and Pod in it) that we use: a field that is not here
# is refused, so a misspelt one is found without a cluster.
MAP = {"*": str}
POD = {
    "restartPolicy": {"Never"},
    "hostNetwork": bool,
    "dnsPolicy": {"ClusterFirstWithHostNet"},
    "terminationGracePeriodSeconds": int,
    "nodeSelector": MAP,
    "containers": [
        {
            "name": str,
            "image": str,
            "args": [str],
            "resources": {"requests": {"google.com/tpu": int}, "limits": {"google.com/tpu": int}},
            "volumeMounts": [{"name": str, "mountPath": str}],
        }
    ],
    "volumes": [{"name": str, "emptyDir": {"medium": {"Memory"}}}],
}
JOB = {
    "parallelism": int,
    "completions": int,
    "completionMode": {"Indexed"},
    "backoffLimit": int,
    "podFailurePolicy": {
        "rules": [
            {
                "action": {"FailJob"},
                "onExitCodes": {"containerName": str, "operator": {"In"}, "values": [int]},
            }
        ]
    },
    "template": {"spec": POD},
}
JOBSET = {
    "apiVersion": {"jobset.x-k8s.io/v1alpha2"},
    "kind": {"JobSet"},
    "metadata": {"name": str, "labels": MAP, "annotations": MAP},
    "spec": {
        "failurePolicy": {
            "maxRestarts": int,
            "rules": [
                {
                    "name": str,
                    "action": {"FailJobSet"},
                    "onJobFailureReasons": [{"PodFailurePolicy"}],
                }
            ],
        },
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
    },
}


def check(value: Any, schema: Any, where: str = "") -> None:
    """Every field is known, of its type, and there."""
    if isinstance(schema, dict) and "*" in schema:
        assert isinstance(value, dict), where
        for key, item in value.items():
            check(item, schema["*"], f"{where}.{key}")
    elif isinstance(schema, dict):
        assert isinstance(value, dict) and set(value) == set(schema), f"{where}: {value}"
        for key, item in value.items():
            check(item, schema[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, where
        for item in value:
            check(item, schema[0], where)
    elif isinstance(schema, set):
        assert value in schema, f"{where}: {value}"
    else:
        assert type(value) is schema, f"{where}: {value!r}"


def jobset(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "jobset.py"), *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


BASE = ["--name", "base", "--image", "a.b/c:d"]
