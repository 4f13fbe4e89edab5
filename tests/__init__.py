"""The tests, a package so that they share `oracles`, `strategies` and `golden`."""
