"""The use cases of review: what people do with a case, one module a part of the work."""
