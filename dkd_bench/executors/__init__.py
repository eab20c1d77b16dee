"""Executors: processes in which crafts are made."""
