"""Task systems beside each other, each by its own driver; ``make bench-peers`` runs them."""
