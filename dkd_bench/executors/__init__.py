"""Executors: where crafts are made."""
