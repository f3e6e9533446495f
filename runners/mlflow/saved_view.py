"""How does the MLflow UI open on the right table? A saved view of the runs page, and links.

The view's format is MLflow's own and undocumented (read off MLflow 3.17); it stays in this module,
a browser test guards it, and `plain_link` is what works without it.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

BEST_VIEW_KEY = "isoflop-best-per-budget"
BUDGET_VIEW_KEY = "isoflop-budget-"
"""And the budget, as `flops_in_words` says it."""
DEFAULT_SERVER = "http://127.0.0.1:5000"

RESULTS_FILTER = (
    "tags.`isoflop.kind` = 'trial' and tags.`isoflop.result` = 'true' "
    "and attributes.status = 'FINISHED'"
)
COLUMNS = (
    "metrics.`rank_in_budget`",
    "tags.`isoflop.budget`",
    "tags.`isoflop.arm`",
    "metrics.`loss_nats`",
    "metrics.`bits_per_byte`",
    "metrics.`num_loops`",
    "metrics.`num_layers`",
    "metrics.`d_model`",
    "metrics.`wide_multiplier`",
    "metrics.`parameters`",
    "metrics.`tokens`",
    "metrics.`train_flops`",
)


def local_tracking_uri(home: Path) -> str:
    """The SQLite tracking database of a home."""
    return f"sqlite:///{home.resolve() / 'mlflow.sqlite'}"


def flops_in_words(flops: float) -> str:
    """Three digits, as 2.7e15: what runs, views and the tag of the budget say."""
    return f"{flops:.3g}".replace("e+", "e")


def budget_view_key(flops: float) -> str:
    """The view of one budget's results."""
    return BUDGET_VIEW_KEY + flops_in_words(flops)


def views(sweep: str, budgets: Sequence[float]) -> dict[str, str]:
    """Experiment tags (key: value) of *Best per budget*, results by rank in theirs, and of a view
    of each budget alone."""
    found = {BEST_VIEW_KEY: ("Best per budget", RESULTS_FILTER)} | {
        budget_view_key(flops): (
            f"Best at {flops_in_words(flops)} FLOPs",
            f"{RESULTS_FILTER} and tags.`isoflop.budget` = '{flops:.3g}'",
        )
        for flops in budgets
    }
    return {
        f"mlflow.sharedViewState.{key}": _view(sweep, name, searched)
        for key, (name, searched) in found.items()
    }


def _view(sweep: str, name: str, searched: str) -> str:
    """A table by rank with charts beside it, as MLflow keeps it."""
    now = int(time.time() * 1000)
    state = {
        "searchFilter": searched,
        "orderByKey": "metrics.`rank_in_budget`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(COLUMNS),
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "SHOWALL",
        "runListHidden": False,
        "viewMaximized": True,
        "groupBy": None,
        "isAccordionReordered": True,
        "compareRunSections": [_section("sweep", sweep)],
        "compareRunCharts": [
            _chart("loss", "SCATTER", xaxis="log10_train_flops", yaxis="loss_nats"),
            _chart("size", "SCATTER", xaxis="parameters", yaxis="loss_nats"),
            _chart("shape", "CONTOUR", xaxis="parameters", yaxis="tokens", zaxis="loss_nats"),
            _parallel("axes", ("num_loops", "wide_multiplier", "num_layers", "loss_nats")),
        ],
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps(
        {"name": name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    )


def view_link(server: str, experiment_id: str, key: str = BEST_VIEW_KEY) -> str:
    """The link that opens a view; nothing else may stand in its query."""
    return (
        f"{server}/#/experiments/{experiment_id}/runs"
        f"?workflowType=machine_learning&viewStateShareKey={key}"
    )


def plain_link(server: str, experiment_id: str, searched: str = RESULTS_FILTER) -> str:
    """A filter, by rank, without a view: for other filters, and an MLflow that knows no views."""
    order = quote("metrics.`rank_in_budget`")
    return (
        f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
        f"&searchFilter={quote(searched)}&orderByKey={order}&orderByAsc=true"
    )


def _section(identity: str, name: str) -> dict[str, object]:
    return {
        "uuid": identity,
        "name": name,
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }


def _chart(identity: str, kind: str, **axes: str) -> dict[str, object]:
    found = {axis: {"key": metric, "type": "METRIC"} for axis, metric in axes.items()}
    return _card(identity, kind) | found


def _parallel(identity: str, metrics: Sequence[str]) -> dict[str, object]:
    """Parallel coordinates; axes are metrics too, since parameters are strings."""
    return _card(identity, "PARALLEL") | {"selectedParams": [], "selectedMetrics": list(metrics)}


def _card(identity: str, kind: str) -> dict[str, object]:
    return {
        "uuid": identity,
        "type": kind,
        "metricSectionId": "sweep",
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }
