"""Baselines that the ensembles are compared with."""
