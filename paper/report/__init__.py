"""``report.html`` and the explorer."""
