"""Records of figures, and the summary and report made of them."""
