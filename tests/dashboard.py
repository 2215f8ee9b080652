"""The dashboard as Grafana would read it."""

import json
from typing import Any

from pipeline.monitoring import DASHBOARD


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return content


def queries(**variables: str) -> dict[str, str]:
    """Panel and legend → query, the dashboard's variables filled in as Grafana fills them in."""
    found = {}
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for variable, value in variables.items():
                query = query.replace(f"${variable}", value)
            found[f"{panel['title']}: {target['legendFormat']}"] = query
    return found
