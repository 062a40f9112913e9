"""Breakages of queues, batches, chunks and ends."""
from __future__ import annotations
