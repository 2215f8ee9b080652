"""What is watched: dashboard.json for Grafana, which needs no settings, and the alerts, which do."""

from pathlib import Path

DASHBOARD = Path(__file__).parent / "dashboard.json"
