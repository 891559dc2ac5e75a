"""The documentation site is built without a warning, and the workflows run what the checkout has."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from albert_jax import cli

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.slow
def test_site_is_built_without_a_warning():
    done = subprocess.run(
        ["bash", "launch/docs.sh"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    page = (ROOT / "build/site/docs/python.html").read_text()
    for name in ("api.load", "api.encode", "api.fill_mask", "config.OptimizerConfig.learning_rate"):
        assert f'id="albert_jax.{name}"' in page, name
    assert "<blockquote>" not in page, "a doctest was taken for a quotation"


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    globs = ("*.md", "docs/*.md", "docs/*.ipynb", "examples/*.md", "benchmarks/*.md")
    pages = [page for pattern in globs for page in ROOT.glob(pattern)]
    missing = [page.name for page in pages if str(page.relative_to(ROOT)) not in menu]
    assert not missing


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_complete_and_name_scripts_that_exist(path):
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}, "a token should read only"
    for name, job in workflow["jobs"].items():
        assert job["runs-on"] and job["steps"], name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            assert "@" in step.get("uses", "@"), step
        assert set(job.get("needs", "").split()) <= set(workflow["jobs"])
    for script in re.findall(r"bash (\S+)", text):
        assert (ROOT / script).is_file(), script
    for command in re.findall(r"bin/albert-jax (.*)", text):
        assert cli.main(shlex.split(command)) == 0, command
