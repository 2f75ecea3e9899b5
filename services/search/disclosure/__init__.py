"""What is disclosed of one search, and the same search run again. See docs/disclosure.md."""
