"""`likeness assurance`: documents that are bound to the running configuration. See docs/assurance/README.md."""
