"""How do other packages fit the same table? Ours and two from the package index, in one run.

    python -m experiments.benchmarks.laws.fit_peers [--table FILE --column ...] [--environments DIR]

Each peer lives in an environment of its own under ``--environments`` (made with pip at the first
run): ``chinchilla`` 0.2.0 with this Python, ``simple-scaling-laws`` 0.2.0 with a Python 3.12 or
later, skipped aloud where there is none. Without a table the 240 Chinchilla rows of the reference
data are used. Wall seconds are those of the fit alone, after imports.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tyro

from analysis.fit.fitting import fit
from analysis.gauntlet.published_cases import chinchilla_points
from analysis.laws.law_registry import law_named
from analysis.objective.estimators import Estimator
from analysis.points.checked_points import Points
from analysis.points.column_roles import parse_roles
from analysis.points.table_reading import points_from
from analysis.solve.solving import solve
from experiments.command import parse_options, print_json, talk
from experiments.verbs.fit import default_reference

CHINCHILLA_SCRIPT = """
import functools, json, sys, tempfile, time, warnings
warnings.filterwarnings("ignore")
import matplotlib
matplotlib.use("Agg")
import numpy as np, pandas as pd
from chinchilla import Chinchilla
from chinchilla._metrics import log_huber
table = pd.read_csv(sys.argv[1])
grid = dict(e=np.linspace(-1, 1, 3), a=np.linspace(0, 25, 3), b=np.linspace(0, 25, 3),
            alpha=np.linspace(0.2, 1.0, 3), beta=np.linspace(0.2, 1.0, 3))
with tempfile.TemporaryDirectory() as folder:
    model = Chinchilla(folder, param_grid=grid, loss_fn=functools.partial(log_huber, delta=1e-3),
                       log_level=50)
    model.database.df = pd.DataFrame(dict(C=6.0 * table.params * table.tokens, N=table.params,
                                          D=table.tokens, loss=table.loss))
    began = time.perf_counter()
    model.fit(parallel=True)
    seconds = time.perf_counter() - began
names = ("E", "A", "B", "alpha", "beta")
print("RESULT" + json.dumps(dict(parameters={n: float(getattr(model, n)) for n in names},
      intervals=None, seconds=seconds, starts=3 ** 5)))
"""
"""Its default loss is another one; it is given the Huber loss of log losses, as ours."""

SIMPLE_SCRIPT = """
import json, sys, time
import numpy as np, polars as pl
from simple_scaling_laws import fit
table = pl.read_csv(sys.argv[1])
frame = pl.DataFrame(dict(training_run_id=[f"run{i}" for i in range(table.height)],
    test_set_id=["all"] * table.height, model_size__n_params=table["params"],
    dataset_size__n_tokens=table["tokens"], test_loss__nats=table["loss"]))
began = time.perf_counter()
model = fit(frame, law="separable-power", n_draws=1000, seed=0)
seconds = time.perf_counter() - began
target = model.primary_target
values = {k: float(v) for k, v in model.params(target).items()}
for size, exponent, column in (("A", "alpha", "params"), ("B", "beta", "tokens")):
    values[size] *= float(np.exp(np.log(table[column]).mean())) ** values[exponent]
intervals = {k: [float(x) for x in v] for k, v in model.conf_int(target).items() if k not in "AB"}
print("RESULT" + json.dumps(dict(parameters=values, intervals=intervals, seconds=seconds,
                                 starts=None)))
"""
"""It fits squared errors of the loss itself; a bootstrap of 1,000 draws is part of its fit. Its A
and B belong to sizes over their geometric means, and are brought to the table's units here."""

INSTALL_SECONDS = 300
FIT_SECONDS = 500


@dataclass(frozen=True)
class PeersOptions:
    """Fit one table by three packages."""

    table: Path | None = None
    """A .csv or .parquet file; left out: the 240 Chinchilla rows."""
    column: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """ROLE=COLUMN, repeatable."""
    tokens_from_flops: str | None = None
    """6nd: tokens = flops / (6 params)."""
    reference: Path = field(default_factory=default_reference)
    """Folder of the reference data."""
    environments: Path = Path("runs/peers")
    """Where the peers' environments are kept."""
    json: bool = False
    """Print one JSON document."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A package of the index and how it is driven."""

    requirement: str
    """What pip installs."""
    python_names: tuple[str, ...]
    """Interpreters that can run it, the best first."""
    script: str
    """Reads the table's path from its first argument, prints RESULT and JSON."""
    fits_by: str
    """Its estimator, in words."""


PEERS = (
    Peer(
        requirement="chinchilla==0.2.0",
        python_names=(sys.executable,),
        script=CHINCHILLA_SCRIPT,
        fits_by="huber 1e-3 of log losses, BFGS from 243 starts, no intervals",
    ),
    Peer(
        requirement="simple-scaling-laws==0.2.0",
        python_names=("python3.13", "python3.12"),
        script=SIMPLE_SCRIPT,
        fits_by="squared errors of losses, 1,000 bootstrap draws",
    ),
)


def working_interpreter(names: tuple[str, ...]) -> str | None:
    """The first of these interpreters that starts; version managers' stand-ins may not."""
    managed = sorted(Path.home().glob(".pyenv/versions/3.1[2-9]*/bin/python3"), reverse=True)
    others = [] if names == (sys.executable,) else [str(path) for path in managed]
    for name in (*names, *others):
        path = shutil.which(name)
        if path is None:
            continue
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def run_peer(peer: Peer, table: Path, environments: Path) -> dict[str, Any]:
    """Figures, intervals and seconds of one peer; ``skipped`` says why there are none."""
    python = working_interpreter(peer.python_names)
    if python is None:
        return {"skipped": f"no interpreter among {', '.join(peer.python_names)} on this machine"}
    folder = environments.absolute() / peer.requirement.replace("==", "-")
    inside = folder / "bin" / "python"
    if not (folder / "installed").is_file():
        talk(f"installing {peer.requirement} into {folder}")
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        command = [str(inside), "-m", "pip", "install", "--quiet", peer.requirement]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
        if done.returncode:
            return {"skipped": f"pip could not install it: {done.stderr.strip().splitlines()[-1]}"}
        (folder / "installed").touch()
    talk(f"running {peer.requirement}")
    done = subprocess.run(
        [str(inside), "-c", peer.script, str(table)],
        capture_output=True,
        text=True,
        timeout=FIT_SECONDS,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if done.returncode or not lines:
        return {"skipped": f"it failed: {(done.stderr.strip() or 'no result').splitlines()[-1]}"}
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT"))
    return found


def huber_objective(points: Points, parameters: dict[str, float]) -> float:
    """Sum of Huber(1e-3) of the log residuals at someone's parameters."""
    predicted = np.asarray(law_named("chinchilla").loss(points.columns, parameters))
    return float(Estimator().objective(np.log(predicted / points.losses)))


def run_ours(points: Points, estimator: Estimator) -> dict[str, Any]:
    """Our fit, 1,000 pairs resamples included."""
    began = time.perf_counter()
    found = fit(
        "chinchilla", points, estimator=estimator, resample_kind="pairs", num_resamples=1000
    )
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    solve(points, law_named("chinchilla"), estimator)
    return {
        "parameters": found.parameters,
        "intervals": found.to_dict()["intervals"],
        "seconds": seconds,
        "point_seconds": time.perf_counter() - began,
        "starts": found.starts.number,
        "status": found.status,
    }


def main(argv: list[str]) -> int:
    """Run all and print them side by side."""
    options = parse_options(PeersOptions, argv, verb="benchmark fit_peers")
    if options.table is not None:
        points = points_from(
            options.table,
            ("params", "tokens"),
            roles=parse_roles(options.column),
            tokens_from_flops=options.tokens_from_flops,
        )
    elif (options.reference / "chinchilla").is_dir():
        points = chinchilla_points(options.reference)
    else:
        talk(f"skipped: the reference data is absent from {options.reference}; give --table")
        return 0
    rows = {
        "isoflop, huber": run_ours(points, Estimator()),
        "isoflop, mse": run_ours(points, Estimator(name="mse")),
    }
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        pl.DataFrame(
            {
                "params": points.columns["params"],
                "tokens": points.columns["tokens"],
                "loss": points.losses,
            }
        ).write_csv(table)
        for peer in PEERS:
            rows[peer.requirement] = {
                "fits_by": peer.fits_by,
                **run_peer(peer, table, options.environments),
            }
    for row in rows.values():
        values = row.get("parameters")
        if values and None not in values.values():
            row["huber_objective"] = huber_objective(points, values)
    if options.json:
        print_json({"num_rows": points.num_rows, "fits": rows})
    else:
        print(report(rows))
    return 0


def report(rows: dict[str, dict[str, Any]]) -> str:
    """Side by side, for a person."""
    lines = []
    for name, row in rows.items():
        if "skipped" in row:
            lines.append(f"{name}: skipped, {row['skipped']}")
            continue
        point = (
            f" (the point fit alone {row['point_seconds']:.3f} s)" if "point_seconds" in row else ""
        )
        by = f", {row['fits_by']}" if "fits_by" in row else ""
        lines.append(f"{name}{by}: {row['seconds']:.2f} s{point}")
        for parameter, value in row["parameters"].items():
            interval = (row["intervals"] or {}).get(parameter)
            shown = "no interval" if interval is None else f"[{interval[0]:.5g}, {interval[1]:.5g}]"
            lines.append(f"    {parameter:<6} {value:>12.6g}  {shown}")
        lines.append(f"    sum of Huber(1e-3): {row.get('huber_objective', float('nan')):.10g}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
