"""Campaigns: looking for findings within a time budget."""
