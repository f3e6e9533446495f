"""Are the recipes for clusters what KubeRay and SkyPilot read, and are their commands ours?"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from experiments.cli import VERBS
from search.asked.settings import WorkerSettings

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "clusters"


def read(name: str) -> dict[str, Any]:
    found = yaml.safe_load((FOLDER / name).read_text())
    assert isinstance(found, dict)
    return found


def commands(text: str) -> list[list[str]]:
    """The isoflop commands in a text, as words."""
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("isoflop ")]


def require_ours(words: list[str]) -> None:
    """A verb of ours, with options that it has."""
    assert words[:2] == ["isoflop", "sweep"]
    assert words[1] in VERBS
    known = {"--home", "--insecure", *(f"--workers.{name}" for name in WorkerSettings.model_fields)}
    assert {word for word in words if word.startswith("--")} <= known


def test_a_kuberay_job_has_what_the_operator_reads() -> None:
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    require_ours(shlex.split(spec["entrypoint"]))
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/shared"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_a_skypilot_task_keeps_off_its_own_ray() -> None:
    task = read("sky.yaml")
    assert set(task) == {"name", "num_nodes", "resources", "file_mounts", "setup", "run"}
    (command,) = commands(task["run"])
    require_ours(command)
    assert "auto" not in command
    for port in ("6380", "52365"):
        assert port not in task["run"]
    assert len(re.findall(r"--dashboard-agent-listen-port 52399", task["run"])) == 2
