"""Moving the gallery to another model without an outage."""
