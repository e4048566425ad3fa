"""The Dask engine on clusters of its own: a worker that dies, one that is unfit, none at all, and jobs of Slurm."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from petground.labeling.errors import ConfigError
from petground.labeling.site import Site
from petground.pipeline.executors import executor
from petground.pipeline.executors.cluster import CLUSTERS, JobCluster, job_options, read_cluster
from petground.pipeline.label_run import LabelRun, run_labels
from petground.pipeline.reports import open_export

HERE = Path(__file__).parent
pytest.importorskip("distributed")


@pytest.fixture
def exams(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("small_exams")


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers as a site would start them; the address, and the workers' processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    dask = [sys.executable, "-m", "dask"]
    started = [
        subprocess.Popen(
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], cwd=tmp_path, **quiet
        )
    ]
    options = ["--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(tmp_path)]
    started += [subprocess.Popen([*dask, "worker", address, *options], cwd=tmp_path, **quiet) for _ in range(2)]
    yield address, started[1:]
    for process in started:
        process.kill()
        process.wait()


def label(export: tuple[Path, Path], out: Path, **options: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    with executor(folders=(out, export[1]), **options) as run:
        return run_labels(LabelRun(open_export(export[0]), export[1], out, Site(), run))


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_two_workers_one_killed_gives_the_tables_of_a_local_run(
    exams: ModuleType, scheduler: tuple[str, list[subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    from distributed import Client

    address, workers = scheduler
    export = exams.archive(tmp_path, [f"e{number:02d}" for number in range(8)])
    label(export, tmp_path / "local", workers=2)
    out, killed = tmp_path / "dask", False
    with Client(address, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
    with executor("dask", address=address, folders=(tmp_path, export[1])) as run:

        def watched(function: Any, cases: Any) -> Iterator[Any]:
            nonlocal killed
            for outcome in run(function, cases):
                if not killed and function.__name__ == "exam_case":
                    children = psutil.Process(workers[0].pid).children(recursive=True)
                    os.kill(workers[0].pid, signal.SIGKILL)
                    killed = True
                    psutil.wait_procs(children, timeout=10)
                    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
                yield outcome

        summary = run_labels(LabelRun(open_export(export[0]), export[1], out, Site(), watched))
    assert killed
    assert summary["labels"] == 8
    assert exams.tables(out) == exams.tables(tmp_path / "local")
    assert not list(tmp_path.glob(".petground-*")), "the token of the check is taken away"


def _hears_ctrl_c() -> None:
    """What is started in the background ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name == "nt", reason="needs process groups")
@pytest.mark.parametrize("starting", [True, False])
def test_ctrl_c_ends_with_one_line_and_no_traceback(tmp_path: Path, starting: bool) -> None:
    sentence = "Hypermetabolic left axillary node {0}, SUVmax {0}.1, axial slice 5{0}. "
    text = "FINDINGS: " + "".join(sentence.format(n % 10) for n in range(15))
    reports, out = tmp_path / "reports.csv", tmp_path / "out"
    reports.write_text("exam_id,report_text\n" + "".join(f'e{n},"{text}"\n' for n in range(15_000)))
    words = ["extract", "--reports", str(reports), "--out", str(out), "--engine", "dask", "--workers", "2"]
    run = subprocess.Popen(
        [sys.executable, "-m", "petground.pipeline.cli", *words],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path,
        preexec_fn=_hears_ctrl_c,  # noqa: PLW1509  (no threads here)
    )  # fmt: skip
    deadline = time.monotonic() + 90
    group: list[psutil.Process] = []
    # processes of the cluster are there before it stands; rows, once the workers have cases
    while not (len(group) >= 2 and (starting or list(out.glob(".rows.*")))):
        assert run.poll() is None, "it was done before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.1)
        group = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to every process of the group
    _, told = run.communicate(timeout=60)
    assert run.returncode == 1
    assert told.strip().splitlines() == [
        "petground: stopped; what is finished is kept, the same command goes on from there"
    ]
    _, alive = psutil.wait_procs(group, timeout=10)
    assert not alive


def test_no_scheduler_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petground.pipeline.executors.dask_engine.CONNECT_S", 1.0)
    with (
        pytest.raises(ConfigError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"),
        executor("dask", address="tcp://127.0.0.1:9"),
    ):
        pass


def test_a_worker_that_does_not_see_the_folders_or_has_other_code_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The check that a worker makes before its first case; it runs here, with claims that do not hold."""
    from dataclasses import replace

    from petground.pipeline.executors import claim

    monkeypatch.setattr(claim, "APPEARS_S", 0.1)
    with claim.claimed([tmp_path]) as mine:
        assert claim.check_claim(mine) is None
        other = claim.check_claim(replace(mine, code="0" * 32))
        assert other is not None
        assert "source 00000000" in other[0]
        away = claim.check_claim(replace(mine, folders=(str(tmp_path), "/nowhere/exams")))
        assert away is not None
        assert "does not see /nowhere/exams" in away[0]
        token = claim.check_claim(replace(mine, token=str(tmp_path / ".petground-of-another-disk.token")))
        assert token is not None
        assert "share" in token[1]
    assert not list(tmp_path.iterdir())


def test_an_unfit_worker_ends_the_run_before_any_case(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"does not see .*nowhere"),
        executor("dask", workers=1, folders=(tmp_path, Path("/nowhere/exams"))),
    ):
        pytest.fail("it must not come this far")


GOOD = (
    "slurm: {queue: gpu, cores: 4, memory: 16GB, walltime: '02:00:00', jobs: 3, account: nuk, directives: [--qos=low]}"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slurm: {cores: 4, memory: 16GB, wall_time: '1:00:00'}", "unknown key 'wall_time'; did you mean walltime"),
        ("slrum: {cores: 4, memory: 16GB}", "unknown queueing system 'slrum'; did you mean slurm"),
        ("slurm: {cores: four, memory: 16GB}", "cores is 'four'"),
        ("slurm: {cores: true, memory: 16GB}", "cores is True"),
        ("slurm: {cores: 4, memory: 16GB, jobs: 0}", "jobs is 0"),
        ("slurm: {cores: 4, memory: 16}", "memory is 16"),
        ("slurm: {cores: 4, memory: much}", "memory is 'much'"),
        ("slurm: {cores: 4}", "memory is missing"),
        ("slurm: {cores: 4, memory: 16GB, walltime: 12:00:00}", "walltime is 43200.*in quotes"),
        ("slurm: {cores: 4, memory: 16GB, walltime: later}", "walltime is 'later'"),
        ("slurm: {cores: 4, memory: 16GB, directives: --qos=low}", "directives is '--qos=low'.*list"),
        ("slurm: {cores: 4, memory: 16GB, directives: [1]}", "directives is .1."),
        ("cores: 4\nmemory: 16GB", "one block of settings"),
        ("slurm:", "one block of settings"),
        ("a: [", "line 1 is not YAML"),
        ("slurm:\n  cores: 4\n  memory: 16GB\n  cores: 8\n", "line 4: 'cores' stands there a second time"),
    ],
)
def test_a_wrong_cluster_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_cluster(path)


def test_the_job_script_asks_for_what_the_file_says(tmp_path: Path) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    path = tmp_path / "cluster.yaml"
    path.write_text(GOOD)
    described = read_cluster(path)
    assert described == JobCluster("slurm", 4, "16GB", 3, "gpu", "nuk", "02:00:00", directives=("--qos=low",))
    with jobqueue.SLURMCluster(**job_options(described)) as cluster:
        script = cluster.job_script()
    for line in ("-p gpu", "-A nuk", "-n 1", "--cpus-per-task=4", "--mem=15G", "-t 02:00:00", "--qos=low"):
        assert f"#SBATCH {line}" in script
    assert "--nthreads 4" in script
    for system in CLUSTERS:
        with getattr(jobqueue, CLUSTERS[system])(**job_options(JobCluster(system, 1, "2GB"))) as cluster:
            assert "dask" in cluster.job_script()


def test_a_cluster_file_where_no_jobs_can_be_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(GOOD)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="sbatch is not to be found"), executor("dask", cluster=path):
        pass


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A controller and a node of Slurm, both this machine. Skips where Slurm is not installed, or not root."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a Slurm of one node needs root and {', '.join(missing) or 'no more'} (Debian: slurm-wlm, munge)")
    host, folder = socket.gethostname().split(".")[0], tmp_path / "slurm"
    (folder / "state").mkdir(parents=True)
    (folder / "spool").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "slurm.conf").write_text(
        f"ClusterName=test\nSlurmctldHost={host}\nAuthType=auth/munge\nAuthInfo=socket={folder}/munge.socket\n"
        f"ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nReturnToService=2\nSlurmUser=root\nSlurmdUser=root\n"
        f"SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.pid\nSlurmctldPort=26817\n"
        f"SlurmdPort=26818\nSlurmdSpoolDir={folder}/spool\nStateSaveLocation={folder}/state\n"
        f"SlurmctldLogFile={folder}/ctld.log\nSlurmdLogFile={folder}/d.log\nSelectType=select/cons_tres\n"
        f"SelectTypeParameters=CR_Core\nNodeName={host} CPUs={os.cpu_count()} RealMemory=4000\n"
        "PartitionName=normal Nodes=ALL Default=YES State=UP\n"
    )
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    munge = [f"--{name}={folder}/munge.{end}" for name, end in (("socket", "socket"), ("key-file", "key"))]
    munge += [f"--pid-file={folder}/m.pid", f"--log-file={folder}/m.log", f"--seed-file={folder}/m.seed"]
    started = [
        subprocess.Popen(words)
        for words in (["munged", "--force", "--foreground", *munge], ["slurmctld", "-D"], ["slurmd", "-D"])
    ]
    try:
        deadline = time.monotonic() + 60
        while b"idle" not in subprocess.run(["sinfo", "-h"], capture_output=True, check=False).stdout:
            assert time.monotonic() < deadline, "Slurm did not come up"
            time.sleep(0.5)
        yield
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=20)


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_jobs_of_slurm_one_of_them_cancelled(exams: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    export = exams.archive(tmp_path, [f"e{number:02d}" for number in range(8)])
    label(export, tmp_path / "local", workers=2)
    path = tmp_path / "cluster.yaml"
    path.write_text(f"slurm: {{queue: normal, cores: 1, memory: 1GB, jobs: 2, log_directory: {tmp_path}/logs}}")
    out = tmp_path / "work"
    out.mkdir()
    with executor("dask", cluster=path, folders=(out, export[1])) as run:

        def watched(function: Any, cases: Any) -> Iterator[Any]:
            for number, outcome in enumerate(run(function, cases)):
                if number == 2:
                    jobs = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True)
                    subprocess.run(["scancel", jobs.stdout.split()[0]], check=True)
                yield outcome

        run_labels(LabelRun(open_export(export[0]), export[1], out, Site(), watched))
    assert exams.tables(out) == exams.tables(tmp_path / "local")
    deadline = time.monotonic() + 30
    while subprocess.run(["squeue", "-h"], capture_output=True, check=True).stdout:
        assert time.monotonic() < deadline, "jobs are left"
        time.sleep(0.5)


def test_no_callback_of_the_garbage_collector_can_swallow_ctrl_c() -> None:
    with executor("dask", workers=1):
        assert not [one for one in gc.callbacks if "distributed" in type(getattr(one, "__self__", one)).__module__]
