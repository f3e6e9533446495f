"""Is anything lost, or done twice, when things break? Every fault of ``tests/faults``, as a table.

``python -m experiments.benchmarks.faults`` runs all of it, which takes an hour or two.
In parts: ``--fault NAME --seeds 0 1 2 --json part.json`` for each, then ``--merge *.json`` for the
table. ``--peer`` kills the driver of the usual stack (Ray Tune, OptunaSearch, the MLflow callback)
in the same way. It needs a checkout, where the tests are.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

COUNTS = ("lost", "duplicated", "wrong")
PEER_SEEDS = 20


def main() -> int:
    """Run, or merge, and print the table; 1 where a count is not zero."""
    options = _parse()
    parts: list[dict[str, Any]] = [json.loads(path.read_text()) for path in options.merge]
    if not parts:
        parts = [_run_part(options)]
    document = merge(parts)
    if options.json is not None:
        text = json.dumps(document, indent=2)
        print(text) if str(options.json) == "-" else options.json.write_text(text + "\n")
    if str(options.json) != "-":
        print(table(document))
    return int(any(row[count] for row in document["faults"] for count in COUNTS))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", nargs="*", default=None, help="names of faults; all if left out")
    parser.add_argument("--seeds", nargs="*", type=int, default=None, help="all if left out")
    parser.add_argument("--peer", action="store_true", help="the usual stack instead")
    parser.add_argument("--merge", nargs="*", type=Path, default=[], help="files of earlier parts")
    parser.add_argument(
        "--json", nargs="?", const=Path("-"), default=None, type=Path, help="print or write JSON"
    )
    return parser.parse_args()


def _run_part(options: argparse.Namespace) -> dict[str, Any]:
    everything = options.fault is None and not options.peer
    faults = [] if options.peer else run_faults(options.fault, options.seeds)
    peer = run_peer(options.seeds) if options.peer or everything else {}
    return {"faults": faults, "peer": peer}


def run_faults(names: list[str] | None, seeds: list[int] | None) -> list[dict[str, Any]]:
    """One row per fault, counted over its seeds."""
    scenarios = importlib.import_module("tests.faults.scenarios")
    toolbox = importlib.import_module("tests.faults.toolbox")
    unknown = set(names or ()) - {fault.name for fault in scenarios.FAULTS}
    if unknown:
        known = ", ".join(fault.name for fault in scenarios.FAULTS)
        sys.exit(f"no fault {sorted(unknown)}; use some of: {known}")
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="isoflop-", dir=memory if memory.exists() else None))
    launcher = toolbox.Launcher()
    bench = scenarios.Bench(launcher, folder)
    try:
        return [
            _run_fault(fault, bench, seeds, scenarios.Unavailable)
            for fault in scenarios.FAULTS
            if names is None or fault.name in names
        ]
    finally:
        launcher.close()
        shutil.rmtree(folder, ignore_errors=True)


def _run_fault(
    fault: Any, bench: Any, seeds: list[int] | None, unavailable: type[Exception]
) -> dict[str, Any]:
    row: dict[str, Any] = {"fault": fault.name, "runs": 0, "lost": 0, "duplicated": 0, "wrong": 0}
    for seed in range(fault.num_seeds) if seeds is None else seeds:
        try:
            verdict = fault.strike(bench, seed)
        except unavailable as error:
            print(f"{fault.name}: skipped: {error}", file=sys.stderr)
            return row
        except Exception as error:
            row["runs"] += 1
            row["wrong"] += 1
            print(f"{fault.name} {seed}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        row["runs"] += 1
        for count in COUNTS:
            row[count] += len(getattr(verdict, count))
        for problem in verdict.problems:
            print(f"{fault.name} {seed}: {problem}", file=sys.stderr)
        missed = f" ({bench.num_misses} tries did not strike)" if bench.num_misses else ""
        said = f"{fault.name} {seed}: {len(verdict.problems)} problems{missed}"
        print(said, file=sys.stderr, flush=True)
    return row


def run_peer(seeds: list[int] | None) -> dict[str, Any]:
    """The driver kill against the usual stack, one row over its seeds."""
    from experiments.benchmarks.faults.ray_tune_peer import strike

    row: dict[str, Any] = {
        "fault": "driver killed (Ray Tune, OptunaSearch, MLflow callback)",
        "runs": 0,
        "lost": 0,
        "duplicated": 0,
        "wrong": 0,
    }
    for seed in range(PEER_SEEDS) if seeds is None else seeds:
        folder = Path(tempfile.mkdtemp(prefix="ray-tune-"))
        counts = strike(folder, seed)
        shutil.rmtree(folder, ignore_errors=True)
        row["runs"] += 1
        for count in COUNTS:
            row[count] += counts[count]
        print(f"peer {seed}: {counts}", file=sys.stderr, flush=True)
    return row


def merge(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up parts, row by row."""
    rows: dict[str, dict[str, Any]] = {}
    for row in [row for part in parts for row in [*part["faults"], part["peer"]] if row]:
        known = rows.setdefault(row["fault"], {"fault": row["fault"]})
        for count in ("runs", *COUNTS):
            known[count] = known.get(count, 0) + row[count]
    peers = [row for row in rows.values() if "Ray Tune" in row["fault"]]
    faults = [row for row in rows.values() if row not in peers]
    return {"faults": faults, "peer": peers[0] if peers else {}}


def table(document: dict[str, Any]) -> str:
    """The rows as a Markdown table."""
    lines = ["| fault | runs | lost | duplicated | wrong |", "|---|---:|---:|---:|---:|"]
    for row in [*document["faults"], document["peer"]]:
        if row:
            cells = " | ".join(str(row[key]) for key in ("fault", "runs", *COUNTS))
            lines.append(f"| {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
