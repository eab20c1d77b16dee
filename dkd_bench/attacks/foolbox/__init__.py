"""Attacks of Foolbox: one wrapper, the library's classes where they had to be repaired, and a table with a row each."""

import warnings

with warnings.catch_warnings():
    # Foolbox imports scipy.ndimage.filters, which scipy has deprecated. Here, before any module of this package.
    warnings.filterwarnings("ignore", message="Please import `gaussian_filter`", category=DeprecationWarning)
    import foolbox  # noqa: F401
