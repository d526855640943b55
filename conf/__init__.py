"""Hydra configuration: config.yaml, workload/, suite/."""
