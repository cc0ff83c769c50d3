-- Parts: head
-- The order of tasks: each task that joins the end of its priority gets the next number.
local function base_of(place)
  return math.floor(place / SPAN) * SPAN
end

-- META.pace has up to 64 samples (number, time), at most one per second: when a number was given
-- out. To make room for a new sample, this drops the one whose neighbours are closest together in
-- relation to their age, so that the error of an age stays a fraction of that age.
local function keep_pace(number)
  local kept = call('HGET', META, 'pace') or ''
  if #kept >= 1024 then
    local drop, least = 2, math.huge
    for i = 2, #kept / 16 - 1 do
      local before = struct.unpack('>d', kept, 16 * i - 23)
      local after = struct.unpack('>d', kept, 16 * i + 9)
      local width = (after - before) / (now - after + 1000000)
      if width < least then drop, least = i, width end
    end
    kept = string.sub(kept, 1, 16 * drop - 16) .. string.sub(kept, 16 * drop + 1)
  end
  call('HSET', META, 'pace', kept .. struct.pack('>dd', number, now), 'paced', now)
end

-- Reserves numbers for *count* tasks that join the end; returns the first number.
local function numbers(count)
  local number = seq
  seq = seq + count
  if now >= (tonumber(known[16] or 0) + 1000000) then keep_pace(number) end
  return number
end
