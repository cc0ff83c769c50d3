-- Parts: ready, events, due_in
-- Keys: LEASES, CLAIMED, SCHED, ASIDE, KINDS
-- Sweeps for a process that waits without claiming.
-- ARGV from 6: kinds; none for all. Reply: {scheduled, ready, claimed, microseconds until a task is
-- due or -1}; of some kinds, the sum of the three in the place of ready. Safe to repeat.
-- A full server allows ZREM, and after its first write a script may also use memory.
call('ZREM', LEASES, '')
if now >= next_due then
  local ready_before = ready_count()
  -- Insert: sweep, trim_dead, hint_joined, hint_ready
end
-- Insert: finish
local scheduled, claimed = call('ZCARD', SCHED), call('ZCARD', CLAIMED)
local ready = ready_count() + call('ZCARD', ASIDE)
local total = scheduled + ready + claimed
if #ARGV < 6 then return { scheduled, ready, claimed, due_in() } end
local counted, others, left = call('HGETALL', KINDS), 0, 0
local wanted = {}
for i = 6, #ARGV do wanted[ARGV[i]] = true end
for i = 1, #counted, 2 do
  others = others + counted[i + 1]
  if wanted[counted[i]] then left = left + counted[i + 1] end
  -- The server has evicted records, or somebody has deleted them, and their kinds with them.
  if total == 0 then call('HDEL', KINDS, counted[i]) end
end
if wanted['default'] then left = left + total - others end
return { 0, math.max(0, math.min(left, total)), 0, due_in() }
