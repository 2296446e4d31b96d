"""Controls: what shows that the instrument can be trusted."""
