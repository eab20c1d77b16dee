"""Storage: files, caches and the digests that name what is kept."""
