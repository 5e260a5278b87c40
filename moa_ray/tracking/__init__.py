"""What a sweep keeps: the ledger, and its views in MLflow and in a bucket."""
