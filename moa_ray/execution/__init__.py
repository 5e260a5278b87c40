"""Trials on Ray: clusters, workers, schedulers, callbacks."""
