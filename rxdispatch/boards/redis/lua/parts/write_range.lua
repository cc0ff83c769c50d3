-- Parts: head
-- Keys: CLAIMED, RANGES, LEASES
-- New ranges. *holder* has the worker and its inbox, or '' for none, and whether the range is handed
-- over.

-- Returns the first of the next *count* tokens.
local function tokens(count)
  if not known[1] and last_token == 0 then
    -- META was lost, but tokens that were ahead of the clock may be held.
    last_token = tonumber(call('ZRANGE', CLAIMED, 0, 0, 'REV', 'WITHSCORES')[2] or 0)
  end
  -- A foreign number as large as this would leave no room for further tokens.
  local first = last_token < 9007199254740992 and math.max(last_token + 1, raw) or raw
  last_token = first + count - 1
  return first
end

local function write_range(first, count, holder, places, deadline)
  call('ZADD', RANGES, first, struct.pack('>dI2BI2B', first, count, holder.handed and 1 or 0,
    #holder.worker, #holder.inbox) .. holder.worker .. holder.inbox .. table.concat(places, ' '))
  call('ZADD', LEASES, deadline, first)
  due(deadline)
end
