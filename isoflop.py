"""The public names of isoflop; nothing is implemented here."""
