-- Parts: ranges
-- Keys: TASKS, PAST, GRAVE, SCHED, TRIES
-- Reads the state of one task.
-- ARGV 6: an id. Reply: {mark, record, tries, worker, grave}, or nil if the id is not known. A done
-- task that is remembered has an empty record. Writes nothing.
local id = ARGV[6]
local record = call('HGET', TASKS, id)
if not record then
  local kept = call('ZSCORE', PAST, id)
  if kept and tonumber(kept) > now then return { 'DONE', '', '', '', '' } end
  return false
end
local history = call('HGET', TRIES, id) or ''
local token = call('ZSCORE', CLAIMED, id)
if token then
  return { 'CLAIMED', record, history, range_of(tonumber(token)).worker, '' }
end
local grave = call('HGET', GRAVE, id)
if grave then return { 'DEAD', record, '', '', grave } end
if call('ZSCORE', SCHED, id) then return { 'SCHEDULED', record, history, '', '' } end
return { 'READY', record, history, '', '' }
