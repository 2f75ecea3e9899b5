"""The custody feed: what custody systems send on the topic, and what is asked about it."""
