"""Training and evaluation: a model and batches in, records out."""
