"""Flags for a custodian: probable duplicates, probably one person under two subjects, an image unlike its subject's."""
