"""One question a file, each figure beside its baseline; ``make bench`` runs them all."""
