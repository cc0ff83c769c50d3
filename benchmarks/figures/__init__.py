"""Records of figures, and the summary and the report that are made from them."""
