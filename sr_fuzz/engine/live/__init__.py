"""Live schedulers, which play many scripts each: the persistent and the server engine."""
