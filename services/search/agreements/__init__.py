"""The owners' data-sharing agreements: signed, dated, withdrawable. See docs/policy.md."""
