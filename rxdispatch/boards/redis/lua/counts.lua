-- Parts: ready
-- Keys: SCHED, CLAIMED, DEAD
-- Counts tasks by mark.
-- Reply: {scheduled, ready, claimed, done, dead}, all at one moment; done is a running total.
-- Writes nothing.
return { call('ZCARD', SCHED), ready_count(), call('ZCARD', CLAIMED),
  tonumber(call('HGET', META, 'done') or 0), call('ZCARD', DEAD) }
