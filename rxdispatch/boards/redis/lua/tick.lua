-- Sweeps for a process that waits without claiming.
-- Reply: {scheduled, ready, claimed, microseconds until a task is due or -1}. Safe to repeat.
call('DEL', REPLY)
sweep()
finish()
return { call('ZCARD', SCHED), ready_count(), call('ZCARD', LEASES), due_in() }
