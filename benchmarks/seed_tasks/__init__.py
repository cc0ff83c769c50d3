"""Ways to hand out tasks, for ``bench_seed_tasks.py``: marks, queues, a lock, a manager, boards."""
