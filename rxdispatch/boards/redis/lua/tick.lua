-- Parts: ready, events, due_in
-- Keys: LEASES, CLAIMED, SCHED, ASIDE, KINDS
-- Sweeps for a process that waits without claiming.
-- ARGV from 6: kinds; none for all. Reply: {scheduled, ready, claimed, microseconds until a task is
-- due or -1, tasks that lapsed in deliveries}; of some kinds, the sum of the three in the place of
-- ready. Safe to repeat.
-- A full server allows ZREM, and after its first write a script may also use memory.
call('ZREM', LEASES, '')
if now >= next_due then
  -- Insert: sweep, trim_dead, hint_joined
  if (woke or woke_suspect) and flagged('w') then
    -- Insert: hand_over
  end
end
local scheduled, claimed = call('ZCARD', SCHED), call('ZCARD', CLAIMED)
local ready = ready_count() + call('ZCARD', ASIDE)
local total = scheduled + ready + claimed
if total > 0 then flag('j') end
-- Insert: finish
if #ARGV < 6 then return { scheduled, ready, claimed, due_in(), undelivered } end
if total == 0 then
  -- The server has evicted records, or somebody has deleted them, and their kinds with them.
  local counted = call('HGETALL', KINDS)
  for i = 1, #counted, 2 do call('HDEL', KINDS, counted[i]) end
  call('HDEL', META, 'lost_kinds')
end
local left = 0
for i = 6, #ARGV do
  if ARGV[i] ~= 'default' then
    left = left + (call('HGET', KINDS, ARGV[i]) or 0)
  else
    -- Those whose records are lost may be among the others, or not.
    local others = -tonumber(call('HGET', META, 'lost_kinds') or 0)
    local counted = call('HGETALL', KINDS)
    for k = 2, #counted, 2 do others = others + counted[k] end
    left = left + math.max(0, total - math.max(0, others))
  end
end
return { 0, math.min(left, total), 0, due_in(), undelivered }
