"""Base against tuned: runs, metrics with intervals, a verdict in words and a report."""
