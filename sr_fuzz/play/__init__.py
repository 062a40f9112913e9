"""Plays a script inside the scheduler process: interpreter, stages, epilogue, monitor, reach."""
