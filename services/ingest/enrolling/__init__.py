"""One enrolment, from the bytes that are accepted to the settled outcome."""
