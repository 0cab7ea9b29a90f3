"""Measurements: how long a step takes, beside the same mathematics written otherwise."""
