"""
Telemetry: Prometheus metrics, and traces that follow a task through a board.

Internal: users import from ``rxdispatch``.
"""
