"""Plugins: how they are found, named, grouped into suites, and given their settings."""
