"""How does the MLflow UI open on the right table? A saved view of the runs page, and links.

The view's format is MLflow's own and undocumented (read off MLflow 3.17); it stays in this module,
a browser test guards it, and `plain_link` is what works without it.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from pathlib import Path
from urllib.parse import quote

BEST_VIEW_KEY = "isoflop-best-per-budget"
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


def best_view(sweep: str) -> tuple[str, str]:
    """Experiment tag (key, value) of the view *Best per budget*: results by rank in theirs."""
    now = int(time.time() * 1000)
    state = {
        "searchFilter": RESULTS_FILTER,
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
        ],
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {
        "name": "Best per budget",
        "createdAt": now,
        "updatedAt": now,
        "state": f"deflate;{packed}",
    }
    return f"mlflow.sharedViewState.{BEST_VIEW_KEY}", json.dumps(view)


def view_link(server: str, experiment_id: str) -> str:
    """The link that opens *Best per budget*; nothing else may stand in its query."""
    return (
        f"{server}/#/experiments/{experiment_id}/runs"
        f"?workflowType=machine_learning&viewStateShareKey={BEST_VIEW_KEY}"
    )


def plain_link(server: str, experiment_id: str) -> str:
    """The same filter and order without the view, for an MLflow that does not know it."""
    order = quote("metrics.`rank_in_budget`")
    return (
        f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
        f"&searchFilter={quote(RESULTS_FILTER)}&orderByKey={order}&orderByAsc=true"
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
    return {
        "uuid": identity,
        "type": kind,
        "metricSectionId": "sweep",
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
        **{axis: {"key": metric, "type": "METRIC"} for axis, metric in axes.items()},
    }
