"""Which pieces of a model have kernels of their own on a GPU? Those that pass over a whole state.

Each is one pass over memory, forward and backward, for any depth, K, width, feed-forward and batch:
what Triton compiles, in tenths of a second, depends on little more than the width's next power of
two. A compiler for whole pieces took 15 to 45 s for every new width (experiments/LOG.md).

Only a GPU runs these; `spaces.parts` and `runners.engine.loss` say what is computed. Without a GPU
``TRITON_INTERPRET=1`` runs them for the tests, where Triton is installed.
"""
