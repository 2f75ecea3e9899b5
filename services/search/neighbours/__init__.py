"""Which references of one owner are so alike, or so unlike, that a custodian should look at them."""
