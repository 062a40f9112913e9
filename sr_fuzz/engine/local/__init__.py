"""The local engine: each script runs in a child process forked from a booted scheduler."""
