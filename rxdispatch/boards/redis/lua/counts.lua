-- Reply: {scheduled, ready, claimed, done, dead}, all of one moment. Writes nothing.
return { call('ZCARD', SCHED), ready_count(), call('ZCARD', LEASES),
  tonumber(call('HGET', META, 'done') or 0), call('ZCARD', DEAD) }
