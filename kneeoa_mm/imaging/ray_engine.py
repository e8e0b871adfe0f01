"""Films over a Ray cluster: one task a shard, each with the workers of ``engine.run_locally``.

Ray sees only shards. A film that kills or hangs its decoder is dealt with inside its task, where
it costs one film; a task whose machine dies is started anew elsewhere and goes on from the
journal. Machines share the folders of studies and output under the same paths.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from kneeoa_mm import __version__
from kneeoa_mm.errors import ConfigError, InputError, KneeOAError, MissingExtraError
from kneeoa_mm.imaging.detectors import with_absolute_path
from kneeoa_mm.imaging.engine import Job, Shard, run_locally
from kneeoa_mm.imaging.journal import is_output
from kneeoa_mm.imaging.worker import FilmRecord

MAX_RETRIES = 3
"""Of a shard whose process or machine died."""

_FILMS_A_SHARD = 500
_OBJECT_STORE_BYTES = 100 * 2**20
_SECONDS_BETWEEN_LOOKS = 0.5
_LABEL = "ray"
_ADDRESS, _LOCAL = "RAY_ADDRESS", "local"


def require() -> None:
    """Stop where the extra is missing.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    if find_spec("ray") is None:
        raise MissingExtraError(
            "--engine ray needs Ray, which is not installed.",
            fix="pip install 'kneeoa-mm[ray]', or share the films out with --shard i/n",
        )


def run_on_ray(job: Job, films: Sequence[int]) -> Iterator[FilmRecord]:
    """Process films on the cluster that RAY_ADDRESS names, or on a fresh one of this machine.

    Args:
        job: The run; ``workers`` is for each task.
        films: Indices of those to process.

    Raises:
        KneeOAError: A shard failed too often, or the cluster is not fit for it.
        OSError: The output cannot be written, or the studies are gone.
    """
    with _cluster(job.workers) as ray:
        slots = _slots(ray, job.workers)
        count = min(len(films), max(slots, -(-len(films) // _FILMS_A_SHARD)))
        shards = [films[number::count] for number in range(count)]
        task = ray.remote(_run_shard).options(
            num_cpus=job.workers, max_retries=MAX_RETRIES, name="films"
        )
        shared = ray.put(replace(job, config=with_absolute_path(job.config)))
        pending = [
            task.remote(shared, shard, str(Shard(number, count)), __version__)
            for number, shard in enumerate(shards, start=1)
        ]
        yield from _results(ray, pending, job, films)


def _run_shard(job: Job, films: Sequence[int], shard: str, version: str) -> None:
    """The task: process what no earlier attempt has recorded."""
    _check_machine(job, version)
    label = f"{shard}.{_LABEL}"
    done = job.journal.waiting(label)
    for _ in run_locally(job, [film for film in films if film not in done], label=label):
        pass


def _check_machine(job: Job, version: str) -> None:
    if version != __version__:
        raise ConfigError(
            "A machine of the cluster has another version of kneeoa-mm.",
            expected=version,
            found=__version__,
        )
    if not (job.root.is_dir() and is_output(job.out)):
        raise ConfigError(
            "A machine of the cluster does not see the folders of studies and output.",
            expected="the same paths on every machine, as on a shared file system",
            fix="use folders that all machines share",
        )


def _results(ray: Any, pending: list[Any], job: Job, films: Sequence[int]) -> Iterator[FilmRecord]:
    """Records as they come into the journals, until the tasks are done."""
    missing = set(films)
    news = job.journal.follow(_LABEL)
    while pending:
        finished, pending = ray.wait(
            pending, num_returns=len(pending), timeout=_SECONDS_BETWEEN_LOOKS
        )
        for film, record in iter(news.__next__, None):
            if film in missing:
                missing.remove(film)
                yield record
        for task in finished:
            _raise_failure(ray, task)


def _raise_failure(ray: Any, task: Any) -> None:
    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise KneeOAError(
            f"A shard failed {MAX_RETRIES + 1} times: its process or machine died.",
            found=type(error).__name__,
            fix="look at the memory of the machines, lower --jobs, and go on with --resume",
        ) from None


def _slots(ray: Any, workers: int) -> int:
    """How many tasks the cluster runs at a time.

    Raises:
        ConfigError: No machine has cores enough for one.
    """
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    slots = sum(count // workers for count in cores)
    if slots == 0:
        raise ConfigError(
            "No machine of the cluster has so many cores.",
            expected=f"at most {max(cores, default=0)}",
            found=f"--jobs {workers}, which is for each task",
        )
    return slots


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """Ray, connected, without statistics, dashboard, or the output of its workers."""
    require()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    address = os.environ.get(_ADDRESS) or _LOCAL
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == _LOCAL:
        # Ray listens on all interfaces; without the token of this run nobody gets in
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        settings |= {
            "num_cpus": max(workers, os.cpu_count() or 1),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_system_config": {"task_oom_retries": MAX_RETRIES},
        }
    import ray

    # what Ray says of machines that die would break the JSON document on stdout
    with redirect_stdout(sys.stderr):
        try:
            ray.init(address=address, **settings)
        except Exception as error:  # Ray raises plain ones where a machine is too slow to start
            raise InputError(
                "Ray does not start, or its cluster does not answer.",
                found=str(error).partition("\n")[0],
                where=f"{_ADDRESS}={address}",
                fix=f"try again, check {_ADDRESS}, or take --engine local or --shard i/n",
            ) from error
        try:
            yield ray
        finally:
            ray.shutdown()
