"""What a subject has a right to be given: a package of everything that is held of them here."""
