"""Live schedulers, each of which plays many scripts: the persistent and the server engine."""
