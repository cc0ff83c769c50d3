-- Parts: ready, events, due_in
-- Keys: LEASES, CLAIMED, SCHED
-- Sweeps for a process that waits without claiming.
-- Reply: {scheduled, ready, claimed, microseconds until a task is due or -1}. Safe to repeat.
-- A full server allows ZREM, and after its first write a script may also use memory.
call('ZREM', LEASES, '')
local ready_before = ready_count()
if now >= next_due then
  -- Insert: sweep, trim_dead, hint_joined
end
-- Insert: hint_ready, finish
return { call('ZCARD', SCHED), ready_count(), call('ZCARD', CLAIMED), due_in() }
