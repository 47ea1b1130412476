"""``python -m benchmarks.quality``: recipes x data x seeds, a line on disk for each finished cell, and tables of the differences."""
