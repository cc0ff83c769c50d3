-- Parts: ready
-- Keys: CLAIMED, SCHED
-- Tells those who join the board when a task has ended and no other is left.
if ended and flagged('j') and call('ZCARD', CLAIMED) == 0 and ready_count() == 0
    and call('ZCARD', SCHED) == 0 then
  call('PUBLISH', JOINED, 'j')
  flags = string.gsub(flags, 'j', '')
end
