"""Known answers and the command that makes them."""
