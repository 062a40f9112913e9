"""From a violation to a small, confirmed script."""
