"""Searches repeated with the other model of a migration: counted, never disclosed."""
