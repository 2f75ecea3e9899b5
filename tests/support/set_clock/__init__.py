"""On the PYTHONPATH of a process whose time of day is to be set."""
