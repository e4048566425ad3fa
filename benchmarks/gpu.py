"""The fused kernels on a GPU: first right, then how quick. `make bench-gpu`, or

    python benchmarks/gpu.py               everything; may be stopped at any moment and goes on where it was
    python benchmarks/gpu.py cross check:topk    these rows

1. Every operator, every call that its `cases()` make: outputs and gradients against float64 (gpu_check.py).
2. Rows (gpu_rows.py): petground's kernel in turn with the library's on the same operands, every one of them compared
   with float64 before it is timed. Median of rounds by CUDA events, L2 flushed; what is compared are ratios of times of
   the same round. The bandwidth of a plain copy is measured beside each row; a row's share of it counts only the bytes
   that must be moved: operands once, answers once, and backward the answer's gradient and the operands'.

Each row runs in a process of its own (a kernel that breaks the GPU's context breaks no other row) and leaves a file in
PETGROUND_BENCH_FOLDER (build/bench_gpu), under a name that changes with kernels, benchmark, GPU, torch and Triton.
After PETGROUND_BENCH_MINUTES (170) no further row is started. The figures go to docs/results/gpu.json and, as a table,
to docs/performance.md. Exit code: 0, 1 where a kernel is wrong or a row did not run, 2 without a GPU.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # what benchmarks share; also where the shell keeps it out (PYTHONSAFEPATH)

import torch  # noqa: E402
from gpu_check import LIMITS, check_operator, deviations, faults_of, outcome  # noqa: E402
from gpu_problems import ADAPTERS  # noqa: E402
from gpu_rows import ROWS  # noqa: E402
from gpu_table import written  # noqa: E402
from gpu_timing import Clock, copy_rate, in_turn, peak_mib  # noqa: E402
from torch import Tensor  # noqa: E402

ROOT = HERE.parent
NAMES = (*(f"check:{operator}" for operator in ADAPTERS), *ROWS)
NEEDS = """The GPU benchmark needs an NVIDIA GPU of compute capability 8.0 or more (A100 and later), Triton, and a torch
built for CUDA; here: {why}.
What proves the kernels without a GPU:
  pytest tests/kernels
  python -m petground.kernels.aot --check docs/results/aot.csv
"""


def why_not() -> str | None:
    """What is missing here, or None."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees none"
    if torch.cuda.get_device_capability() < (8, 0):
        return f"{torch.cuda.get_device_name()} has compute capability {torch.cuda.get_device_capability()}"
    if os.environ.get("TRITON_INTERPRET"):
        return "TRITON_INTERPRET is set: kernels would be interpreted; unset it"
    try:
        importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "Triton is not installed"
    return None


def timed(name: str, device: torch.device, *, small: bool = False, by: str = "triton", **clock: Any) -> dict[str, Any]:
    """A row: who is right, and the times of those who are."""
    row, timer = ROWS[name], Clock(device)
    setup = row.make(device, small, by)
    dtype = next(iter(setup.tensors.values())).dtype
    if setup.choice:
        truth = {"out": setup.plain(**setup.tensors)}
    else:
        truth = outcome(setup.plain, setup.tensors, wide=True)
    runs: dict[str, tuple[Callable[..., Tensor], dict[str, Tensor]]] = {}
    entries: dict[str, dict[str, Any]] = {
        contender: {"left_out": why.splitlines()[0]} for contender, why in (setup.missing or {}).items()
    }
    every = {"petground": (setup.petground, None, False)} | {
        contender: (one.run, one.order, one.eager) for contender, one in setup.contenders.items()
    }
    for contender, (run, order, eager) in every.items():
        entry: dict[str, Any] = {"eager": True} if eager else {}
        entries[contender] = entry
        tensors, right = _ordered(setup.tensors, order), _ordered(truth, order)
        with warnings.catch_warnings(record=True) as told:  # where SDPA says why it does not serve
            warnings.simplefilter("always")
            try:
                got = {"out": run(**tensors)} if setup.choice else outcome(run, tensors, wide=False)
            except Exception as error:  # a library that does not take these operands: each has its own kind
                entry["left_out"] = _reason(error, [str(one.message) for one in told])
                continue
        entry["error"] = float(f"{deviations(right['out'], got['out'])[0]:.2g}")
        if setup.choice:
            wrong = {} if torch.equal(got["out"], right["out"]) else {"out": "another choice"}
        else:
            wrong = faults_of(right, got, dtype)
        del got
        if wrong:
            entry["left_out"] = f"wrong: {wrong}"
        else:
            runs[contender] = (run, tensors)
    moved = _moved(setup.tensors, truth["out"].shape.numel() * _size(truth["out"], dtype, setup.choice), setup)
    del truth
    found = {"what": row.what, "copy_gb_s": round(copy_rate(timer, device, 1 if small else 1024) / 1e9, 1)}
    found |= {"share_goals": row.share, "ratio_goal": row.ratio, "contenders": entries, "passes": {}}
    for index, passed in enumerate(("forward",) if setup.choice else ("forward", "backward")):
        calls = {contender: _call(passed, run, tensors) for contender, (run, tensors) in runs.items()}
        times = in_turn(timer, calls, **clock)
        for contender, call in calls.items():
            entries[contender][f"{passed}_peak_mib"] = peak_mib(call, device)
        found["passes"][passed] = _summary(times, entries, moved[index], found["copy_gb_s"])
        del calls
    return found


def _reason(error: Exception, told: list[str]) -> str:
    """The error's first line, and the first warning that says why."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    why = [one.split(" (Triggered")[0].strip() for one in told]
    why = [one for one in why if one and not one.endswith("because:")]
    return (f"{why[0]} ({first})" if why else first)[:200]


def _ordered(tensors: Mapping[str, Tensor], order: Tensor | None) -> dict[str, Tensor]:
    if order is None:
        return dict(tensors)
    return {name: one[:, :, order] if one.ndim == 4 else one for name, one in tensors.items()}


def _size(out: Tensor, dtype: torch.dtype, choice: bool) -> int:
    """Bytes of an entry of the answer, which the truth has in float64."""
    return out.element_size() if choice else torch.empty(0, dtype=dtype).element_size()


def _moved(tensors: Mapping[str, Tensor], out: int, setup: Any) -> tuple[int, int]:
    """The bytes that a forward and a backward cannot do without."""
    operands = sum(one.numel() * one.element_size() for one in tensors.values())
    return operands + setup.extra_bytes + out, 2 * operands + setup.extra_bytes + out


def _call(passed: str, run: Callable[..., Tensor], tensors: Mapping[str, Tensor]) -> Callable[[], Any]:
    if passed == "forward":

        def forward() -> Tensor:
            with torch.no_grad():
                return run(**tensors)

        return forward
    own = {name: one.detach().requires_grad_() for name, one in tensors.items()}
    out = run(**own)
    above = torch.ones_like(out)
    return lambda: torch.autograd.grad(out, list(own.values()), above, retain_graph=True)


def _summary(
    times: Mapping[str, list[float]], entries: Mapping[str, Mapping[str, Any]], moved: int, copy_gb_s: float
) -> dict[str, Any]:
    """Medians; and where petground ran, its share of a copy's bandwidth and how much quicker it is than each."""
    found: dict[str, Any] = {"ms": {name: round(statistics.median(each), 4) for name, each in times.items()}}
    found["bytes"] = moved
    ours = times.get("petground")
    if ours is None:
        return found
    found["copy_share"] = round(moved / (1e-3 * statistics.median(ours)) / (copy_gb_s * 1e9), 3)
    ratios = {
        name: round(statistics.median(b / a for a, b in zip(ours, each, strict=True)), 3)
        for name, each in times.items()
        if name != "petground"
    }
    library = {name: ratio for name, ratio in ratios.items() if not entries[name].get("eager")}
    return found | {"times_as_quick_as": ratios, "best_library": min(library, key=library.__getitem__, default=None)}


def _identity(name: str) -> str:
    """Changes with the kernels, what measures them, the GPU, torch and Triton."""
    return hashlib.sha256(f"{name} {_sources()} {json.dumps(_machine())}".encode()).hexdigest()[:12]


@cache
def _sources() -> str:
    files = sorted([*HERE.glob("gpu*.py"), *(ROOT / "kernels").rglob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.name != "gpu_table.py")).hexdigest()


def _machine() -> dict[str, Any]:
    versions = {}
    for library in ("torch", "triton", "natten", "flash-linear-attention"):
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "not installed"
    versions["CUDA"] = torch.version.cuda or "none"
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {"gpu": name, "versions": versions}


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    told = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    return told.stdout.strip() or os.environ.get("PETGROUND_COMMIT", "unknown")


def collect(
    names: tuple[str, ...], folder: Path, until: float, run: Callable[[str], dict[str, Any] | None]
) -> tuple[dict[str, Any], bool]:
    """({row: figures} of all rows that are there, whether all asked for are); what is there is not run again."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = True
    for name in names:
        path = folder / f"{name.replace(':', '_')}_{_identity(name)}.json"
        if path.is_file():
            continue
        if time.monotonic() >= until:
            whole = False
            continue
        sys.stderr.write(f"{name} ...\n")
        figures = run(name)
        if figures is None:
            whole = False
            continue
        part = path.with_suffix(".part")
        part.write_text(json.dumps(figures), encoding="utf-8")
        os.replace(part, path)
    files = {name: folder / f"{name.replace(':', '_')}_{_identity(name)}.json" for name in NAMES}
    return {n: json.loads(f.read_text(encoding="utf-8")) for n, f in files.items() if f.is_file()}, whole


def _in_own_process(name: str, until: float) -> dict[str, Any] | None:
    command = [sys.executable, "-P", __file__, "--row", name]
    try:
        told = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True, timeout=until - time.monotonic())
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"{name}: out of time, begins anew with the next call\n")
        return None
    if told.returncode != 0:
        sys.stderr.write(f"{name}: exit code {told.returncode}, left out\n")
        return None
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return found


def _wrong(row: Mapping[str, Any]) -> bool:
    return bool(row.get("faults")) or "left_out" in row.get("contenders", {}).get("petground", {})


def main(arguments: list[str]) -> int:
    if arguments in (["-h"], ["--help"]):
        sys.stdout.write(f"{__doc__}\nrows: {', '.join(NAMES)}\n")
        return 0
    missing = why_not()
    if missing is not None:
        sys.stderr.write(NEEDS.format(why=missing))
        return 2
    asked = tuple(arguments[1:] if arguments[:1] == ["--row"] else arguments) or NAMES
    unknown = sorted(set(asked) - set(NAMES))
    if unknown:
        sys.stderr.write(f"no row {', '.join(unknown)}; there are {', '.join(NAMES)}\n")
        return 2
    device = torch.device("cuda", torch.cuda.current_device())
    if arguments[:1] == ["--row"]:
        operator = asked[0].removeprefix("check:")
        figures = check_operator(operator, device) if operator != asked[0] else timed(asked[0], device)
        sys.stdout.write(json.dumps(figures) + "\n")
        return 0
    minutes = float(os.environ.get("PETGROUND_BENCH_MINUTES", "170"))
    until = time.monotonic() + 60.0 * minutes
    folder = Path(os.environ.get("PETGROUND_BENCH_FOLDER", ROOT / "build" / "bench_gpu"))
    rows, whole = collect(asked, folder, until, partial(_in_own_process, until=until))
    result = {
        "command": "python benchmarks/gpu.py", "commit": _commit(), **_machine(),
        "limits": {str(dtype).removeprefix("torch."): limit for dtype, limit in LIMITS.items()}, "rows": rows,
    }  # fmt: skip
    path = ROOT / "docs" / "results" / "gpu.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (ROOT / "docs" / "performance.md").write_text(written(result, NAMES), encoding="utf-8")
    wrong = [name for name, row in rows.items() if _wrong(row)]
    sys.stdout.write(f"{len(rows)} of {len(NAMES)} rows in {path}\n" + "".join(f"WRONG: {name}\n" for name in wrong))
    return 1 if wrong or not whole else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
