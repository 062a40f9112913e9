"""The local engine: each script in a child forked from a booted scheduler."""
