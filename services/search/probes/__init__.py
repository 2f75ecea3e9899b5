"""The sealed copies of probes, and their end."""
