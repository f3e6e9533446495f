"""Measurements behind the claims: each prints a table and, with ``--json``, one document."""
