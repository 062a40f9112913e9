"""Minimising and confirming: from a violation to a small, confirmed script."""
