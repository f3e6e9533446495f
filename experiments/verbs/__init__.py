"""One module per verb of the ``isoflop`` command: its options as a dataclass, and ``run``."""
