"""Probing one defence for masked gradients: planted examples, and the report of all checks."""
