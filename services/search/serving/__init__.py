"""Which model searches are answered with, where two stand side by side."""
