"""Engines that wrap another engine, to compare several runs or to change the configuration."""
