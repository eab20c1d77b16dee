"""Reproduction of the paper that DKD comes from (arXiv 2006.15127), and pages of published records."""
