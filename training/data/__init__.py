"""Public data sets: fetched, verified, decoded by the code that serves, and split by name."""
