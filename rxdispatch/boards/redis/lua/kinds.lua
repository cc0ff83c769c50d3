-- Parts: ready
-- Keys: SCHED, CLAIMED, ASIDE, KINDS
-- Counts unfinished tasks by kind.
-- Reply: {how many are of the kind 'default', the kinds that are paused, {kind, how many, ...}}, all
-- at one moment; the list may have more tasks than there are if records were lost. Writes nothing.
local total = ready_count() + call('ZCARD', SCHED) + call('ZCARD', CLAIMED)
  + call('ZCARD', ASIDE)
if total == 0 then return { 0, paused_field, {} } end
local counted = call('HGETALL', KINDS)
-- Those whose records are lost may be among the others, or not.
local others = -tonumber(call('HGET', META, 'lost_kinds') or 0)
for i = 2, #counted, 2 do others = others + counted[i] end
return { math.max(0, total - math.max(0, others)), paused_field, counted }
