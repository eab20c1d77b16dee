"""The paper that DKD comes from (arXiv 2006.15127): its tables and figure measured, and pages of published records."""
