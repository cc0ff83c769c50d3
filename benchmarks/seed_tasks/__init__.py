"""Ways to hand out tasks, for ``test_seed_tasks.py``: marks, queues, a lock, a manager, boards."""
