"""``python -m experiments`` is the ``isoflop`` command."""

from experiments.cli import main

main()
