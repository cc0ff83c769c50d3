"""Pub/Sub as hot observables."""
