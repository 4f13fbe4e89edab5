"""The benchmarks, a package so that they share their reference workloads."""
