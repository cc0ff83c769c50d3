"""Ways to dispatch tasks, for ``bench_seed_tasks.py``: marks, queues, a lock, a manager, boards."""
