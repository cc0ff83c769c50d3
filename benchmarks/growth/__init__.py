"""What does not fit one machine, simulated from costs that were measured on it."""
