"""Two commits on one machine: processes of both take turns, and callgrind counts the instructions of the AVX2 kernels."""
