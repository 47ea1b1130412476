"""What the report shows beside the verdict: slices, storage, latency, a map of the corpus. Figures and text, no page."""
