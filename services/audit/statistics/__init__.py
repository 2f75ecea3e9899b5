"""Figures from the audit log alone, and the report that is published of them. See docs/transparency.md."""
