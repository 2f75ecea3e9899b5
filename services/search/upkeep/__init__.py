"""Keeping the gallery what the ledger says: following it, comparing with it, building it again, compacting it."""
