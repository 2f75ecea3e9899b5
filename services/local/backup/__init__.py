"""Backups of a platform of one machine: taken while it runs, checked before they are put back."""
