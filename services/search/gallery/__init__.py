"""The embedded exact gallery: chunks of references and the scan over them."""
