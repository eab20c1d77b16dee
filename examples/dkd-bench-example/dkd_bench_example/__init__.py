"""A defence and an attack for dkd-bench, to copy from."""
