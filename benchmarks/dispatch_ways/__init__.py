"""Ways to dispatch tasks: marks, queues, a lock, a manager, boards."""
