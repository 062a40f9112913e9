"""Engines around an engine, which compare several runs."""
