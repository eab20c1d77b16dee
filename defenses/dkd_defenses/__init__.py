"""Ensembles of the paper: diverse knowledge distillation, and what it is compared with."""
