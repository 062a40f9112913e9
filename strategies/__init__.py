"""Hypothesis strategies: requests, actions, whole scripts, and the engine configurations they are drawn for."""
