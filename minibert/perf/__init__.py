"""Is it slower, does it still compute the same, and how sure are we?

``minibert perf gate`` compares the working tree with a revision or with another environment. Nothing
here trains a run by itself, and what only reads files does not import TensorFlow.
"""
