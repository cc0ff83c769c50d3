-- A sweep for processes that wait without claiming. Reply: {scheduled, ready, claimed, microseconds
-- until something is due or -1}. Safe to repeat.
call('DEL', REPLY)
sweep()
finish()
return { call('ZCARD', SCHED), ready_count(), call('ZCARD', LEASES), due_in() }
