"""A Ray cluster gives what one machine gives, also when parts of it die on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nights
import pytest

from kneeoa_mm import __version__
from kneeoa_mm.errors import ConfigError, InputError, MissingExtraError
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.imaging import ray_engine
from kneeoa_mm.imaging.engine import Job
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.journal import INPUTS_FILE

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None or sys.platform != "linux", reason="needs the extra `ray`, and /proc"
)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nights.write_studies(tmp_path_factory.mktemp("studies"), people=12)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines of one core each, both of them this one."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    try:
        started = Cluster(initialize_head=True, head_node_args=node)
        started.add_node(**node)
    except Exception as error:
        # Ray gives a machine 30 seconds to start, and no setting changes that
        pytest.skip(f"Ray does not start here: {error}")
    monkeypatch.setenv("RAY_ADDRESS", started.address)
    yield started
    started.shutdown()


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_a_killed_process_and_a_lost_machine_change_nothing(
    studies: Path, tmp_path: Path, cluster: Any
) -> None:
    """A shard is killed with signal 9, then the machine of another one goes away."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    nights.run(studies, whole)
    process = nights.start(studies, out, "--engine", "ray", "--json")
    nights.wait_for(out, 2, process)
    (other,) = cluster.worker_nodes
    busy = [_tasks(node) for node in (cluster.head_node, other)]
    assert all(busy), "both machines should be at work"
    os.kill(busy[0][0], signal.SIGKILL)
    cluster.remove_node(other, allow_graceful=False)
    stdout, stderr = process.communicate(timeout=nights.HANG_S)
    assert process.returncode == 4, stderr
    assert json.loads(stdout)["counts"]["films"] == 28
    assert "Traceback" not in stderr
    assert nights.contents(out) == nights.contents(whole)


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ray that does nothing but remember how it was started."""
    fake = SimpleNamespace(
        started={},
        init=lambda **settings: fake.started.update(settings, environment=dict(os.environ)),
        shutdown=lambda: fake.started.update(is_down=True),
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False}],
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: name)
    for variable in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(variable, "")  # so that it is restored after the test
    return fake


def test_a_cluster_of_this_machine_tells_nobody_and_lets_nobody_in(
    studies: Path, tmp_path: Path, fake_ray: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="so many cores"):
        nights.run(studies, tmp_path / "out", engine="ray", jobs=3)
    assert fake_ray.started["address"] == "local"
    assert fake_ray.started["include_dashboard"] is False
    assert fake_ray.started["log_to_driver"] is False
    assert fake_ray.started["environment"]["RAY_USAGE_STATS_ENABLED"] == "0"
    assert fake_ray.started["environment"]["RAY_AUTH_MODE"] == "token"
    assert len(fake_ray.started["environment"]["RAY_AUTH_TOKEN"]) == 64
    assert fake_ray.started["is_down"]
    assert capsys.readouterr().out == ""


def test_a_cluster_that_is_named_is_the_one_that_is_used(
    studies: Path, tmp_path: Path, fake_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**settings: Any) -> None:
        assert settings["address"] == "10.0.0.1:6379"
        assert "num_cpus" not in settings
        raise ConnectionError

    monkeypatch.setattr(fake_ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(InputError, match=r"RAY_ADDRESS=10\.0\.0\.1:6379"):
        nights.run(studies, tmp_path / "out", engine="ray")
    assert os.environ["RAY_AUTH_MODE"] == ""


def test_without_the_extra_nothing_is_begun(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"kneeoa-mm\[ray\]"):
        nights.run(studies, tmp_path / "out", engine="ray")
    assert MissingExtraError.exit_code == 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["version", "studies", "out"])
def test_a_machine_that_is_not_fit_says_so(studies: Path, tmp_path: Path, fault: str) -> None:
    """Another version, or folders that it does not see."""
    out = tmp_path / "out"
    out.mkdir()
    (out / INPUTS_FILE).write_text("{}")
    root = tmp_path / "elsewhere" if fault == "studies" else studies
    place = tmp_path / "elsewhere" if fault == "out" else out
    naming = Naming(Identifiers(None))
    job = Job(root, (), (), place, nights.CONFIG, naming, 1)
    version = "0.0.0" if fault == "version" else __version__
    with pytest.raises(ConfigError, match="version" if fault == "version" else "does not see"):
        ray_engine._run_shard(job, [], "1-of-1", version)


def _tasks(node: Any) -> list[int]:
    """Processes that run a task of ours on a machine of the cluster."""
    raylet = node.all_processes["raylet"][0].process.pid
    end = time.monotonic() + 10
    while time.monotonic() < end:
        children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
        busy = [pid for pid in children if _title(pid).startswith("ray::films")]
        if busy:
            return [int(pid) for pid in busy]
        time.sleep(0.05)
    return []


def _title(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
