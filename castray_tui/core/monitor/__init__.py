"""Watching clusters: one poll loop each, whose readings become frozen views and events."""

from castray_tui.core.monitor.cluster_monitor import ClusterMonitor
from castray_tui.core.monitor.view import ClusterView
from castray_tui.core.monitor.view_events import view_events

__all__ = ["ClusterMonitor", "ClusterView", "view_events"]
