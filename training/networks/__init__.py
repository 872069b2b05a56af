"""The PyTorch networks. Each maps raw inputs to (logits, features); all scaling lives inside."""
