"""Searches that are sent to other forces' platforms, and those that come from them. Galleries stay at home."""
