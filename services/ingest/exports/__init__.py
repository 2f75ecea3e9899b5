"""Enrolled references given to another body, as ANSI/NIST-ITL Type-10 transactions."""
