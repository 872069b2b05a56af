"""What becomes of answers: how they are spread, whether that has changed, and whether they turn out right."""
