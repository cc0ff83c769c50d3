-- Parts: events
-- Keys: TASKS, TRIES, EXPIRY
-- The tasks of a claim, with their places, records and counts of tries; and the ids whose records
-- are gone.
local ids, places, records, history = {}, {}, {}, {}
local vanished = {}

-- A worker needs the counts in TRIES, but not the last error.
local function counts_of(tries)
  return tries and #tries >= 9 and string.sub(tries, 1, 9) or false
end

-- Returns the members and the scores of a reply that has them in turn.
local function parted(reply)
  local members, scores = {}, {}
  for i = 1, #reply, 2 do
    members[#members + 1], scores[#scores + 1] = reply[i], reply[i + 1]
  end
  return members, scores
end

-- Adds tasks that were just removed from READY or SUSPECTS to the claim. A task whose ttl is over
-- becomes dead instead: a sweep moves a limited number, so it may have left some. *written* has the
-- records, if the script has read them.
local function take(found, at, written)
  if #found == 0 then return 0 end
  written = written or call('HMGET', TASKS, unpack(found))
  local limits = flagged('t') and call('ZMSCORE', EXPIRY, unpack(found))
  local before = flagged('r') and call('HMGET', TRIES, unpack(found))
  local size, n = 0, #ids
  for i, id in ipairs(found) do
    local record = written[i]
    if limits and limits[i] and tonumber(limits[i]) <= now then
      -- Insert: graves
      local attempts, crashes, _, err = tries(id)
      bury(id, tonumber(at[i]), 'expired', err, attempts, crashes)
    elseif record then
      n = n + 1
      ids[n], places[n], records[n] = id, at[i], record
      if before then history[n] = counts_of(before[i]) end
      size = size + #id + #record
    else
      -- The record was evicted, or deleted by hand: there is nothing to run.
      vanished[#vanished + 1] = id
      call('HDEL', TRIES, id)
      call('ZREM', EXPIRY, id)
      lose_kind()
      event('discarded', id)
      ended = true
    end
  end
  return size
end

-- A reply has about 8 MiB. The first 16 records show how large records are. Tasks that do not fit
-- stay ready, and the reply says that a task is due at once.
local room, step = 8388608, math.min(16, limit)

local function take_some(found, at, written)
  local size = take(found, at, written)
  room = room - size
  step = room <= 0 and 0 or math.min(1000, math.floor(room * #found / math.max(size, 1)))
end
