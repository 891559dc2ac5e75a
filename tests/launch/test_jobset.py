"""The JobSets of launch/jobset.py have fields that a cluster knows, and say what a restart mends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.launch.jobset_schema import BASE, JOBSET, check, jobset
from tests.launch.stand_ins import OPTIONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "accelerator", "topology", "hosts", "chips"),
    [("v5e-1", "tpu-v5-lite-podslice", "1x1", 1, 1), ("v5e-256", "tpu-v5-lite-podslice", "16x16", 64, 4),
     ("v6e-8", "tpu-v6e-slice", "2x4", 1, 8), ("v6e-16", "tpu-v6e-slice", "4x4", 4, 4),
     ("7x-4", "tpu7x", "2x2x1", 1, 4), ("7x-64", "tpu7x", "4x4x4", 16, 4)],
)  # fmt: skip
def test_jobset_is_what_the_cluster_takes(name, accelerator, topology, hosts, chips):
    done = jobset(*BASE, "--slice", name, "--", *OPTIONS)
    assert done.returncode == 0, done.stderr
    manifest = yaml.safe_load(done.stdout)
    check(manifest, JOBSET)
    (slices,) = manifest["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert (slices["replicas"], job["parallelism"], job["completions"]) == (1, hosts, hosts)
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    assert container["args"] == ["pretrain", *OPTIONS]
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= names
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]


def test_jobset_of_several_spot_slices_in_a_queue():
    done = jobset(
        *BASE, "--slice", "v6e-16", "--slices", "3", "--spot", "--queue", "team",
        "--", *OPTIONS, "--seed", "$(HOME) ${name} 'x' \"y\"",
    )  # fmt: skip
    manifest = yaml.safe_load(done.stdout)
    check(manifest, JOBSET)
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}
    (slices,) = manifest["spec"]["replicatedJobs"]
    pod = slices["template"]["spec"]["template"]["spec"]
    assert slices["replicas"] == 3
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    arguments = pod["containers"][0]["args"]
    assert arguments[-2:] == ["--parallel.slice", "3"]
    assert arguments[-3] == "$$(HOME) ${name} 'x' \"y\""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--slice", "v5e-12"], "v5e-12"), (["--slice", "v4-8"], "v4-8"), (["--slice", "7x"], "7x"),
     (["--slice", "v6e-8", "--slices", "2"], "--slices 2"),
     (["--slice", "v6e-8", "--name", "Base_1"], "Base_1")],
)  # fmt: skip
def test_jobset_refuses_what_the_cluster_would(arguments, text):
    done = jobset(*BASE, *arguments, "--", *OPTIONS)
    assert done.returncode == 2 and text in done.stderr and not done.stdout


def test_the_schema_finds_a_misspelt_field_and_a_wrong_type():
    text = jobset(*BASE, "--slice", "v6e-8", "--", *OPTIONS).stdout
    for right, wrong in [("backoffLimit:", "backofLimit:"), ("backoffLimit: 0", "backoffLimit: no"),
                         ("hostNetwork", "hostNetworks"), ("Never", "never")]:  # fmt: skip
        with pytest.raises(AssertionError):
            check(yaml.safe_load(text.replace(right, wrong)), JOBSET)


def test_exit_codes_that_end_a_job_are_those_that_no_restart_mends():
    from albert_jax import errors, exits

    mended = {errors.PeerError.exit_code, errors.Stopped.exit_code}
    known = {
        error.exit_code for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.AlbertError)
    } | {exits.USAGE, exits.INTERNAL}  # fmt: skip
    text = (ROOT / "launch" / "jobset.yaml").read_text()
    assert set(map(int, re.search(r"values: \[(.*)\]", text)[1].split(","))) == known - mended
    cases = re.search(r"^ +0 ((?:\| \d+ ?)+)\)", (ROOT / "launch" / "tpu_vm.sh").read_text(), re.M)
    assert set(map(int, cases[1].split("|")[1:])) == known - mended
