"""`likeness disclosure`: fetch, check and replay the bundle of a search. See docs/disclosure.md."""
