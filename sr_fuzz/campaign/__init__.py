"""Campaigns: the search for findings within a time budget."""
