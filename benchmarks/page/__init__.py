"""One offline page of the newest results: plots as SVG, tables for people, filters by suite and machine."""
