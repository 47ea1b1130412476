"""The report: one HTML file that opens offline, made of figures that others measured."""
