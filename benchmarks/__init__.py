"""The benchmark suite: speed, recall and agreement of nearfield and its peers, each next to the machine's measured ceilings.

``python -m benchmarks`` from the root of the repository; ``docs/benchmarks.md`` says what each figure means.
"""
