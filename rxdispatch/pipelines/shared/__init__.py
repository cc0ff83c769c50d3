"""What several shapes of work have in common."""
