-- Parts: ready
-- Keys: SCHED, CLAIMED, DEAD, ASIDE
-- Counts tasks by mark.
-- Reply: {scheduled, ready, claimed, done, dead}, all at one moment; done is a running total.
-- Writes nothing.
local ready = ready_count() + (aside_field ~= '' and call('ZCARD', ASIDE) or 0)
return { call('ZCARD', SCHED), ready, call('ZCARD', CLAIMED),
  tonumber(call('HGET', META, 'done') or 0), call('ZCARD', DEAD) }
