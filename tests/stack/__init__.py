"""Tests against real servers, run by `make test-stack`."""
