"""One search, from the request to the answer: who asks, which face, what comes back and what is kept of it."""
