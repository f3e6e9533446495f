"""How does MLflow show what the ledger knows? Only here is MLflow imported."""
