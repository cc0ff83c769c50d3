-- Parts: numbers, ready, aside
-- Keys: TASKS
-- Says how long the oldest ready task has waited.
-- Reply: microseconds since it took its place, or -1 if nothing is ready. Writes nothing.
-- The script looks at the first eight tasks of each of the first 64 priorities, in READY and in each
-- line of ASIDE. The first task alone is not enough: a delayed task has the place of its submission,
-- but its age counts from when it was due. The time of a number is exact to a second, or to a
-- fraction of its age.
local kept = call('HGET', META, 'pace') or ''

-- The time at which *number* was given out.
local function given(number)
  local low, high = 0, #kept / 16
  while low < high do
    local middle = math.floor((low + high) / 2)
    if struct.unpack('>d', kept, 16 * middle + 1) <= number then
      low = middle + 1
    else
      high = middle
    end
  end
  -- A number from before the first sample gets the time of the first sample.
  if #kept == 0 then return now end
  return (struct.unpack('>d', kept, 16 * math.max(0, low - 1) + 9))
end

-- The delay of a task, in microseconds, from its record; 0 if the task has none, or was retried.
-- A record is a MessagePack array: of two without options, else of nine, and the last two are delay
-- and ttl. A float begins with the byte 0xcb. A delay is not negative, so the first byte of its
-- value is never 0xcb.
local function delay_of(id)
  local record = call('HGET', TASKS, id) or ''
  record = string.sub(record, select(2, kind_of(record)))
  if #record < 20 or string.byte(record, 1) ~= 0x99 or (tries(id)) > 0 then return 0 end
  local at = string.byte(record, -9) == 0xcb and -18 or -10
  if string.byte(record, at) ~= 0xcb then return 0 end
  return struct.unpack('>d', string.sub(record, at + 1, at + 8)) * 1000000
end

local oldest = -1
local function look_at(id, number)
  local age = math.max(now - given(number), 0)
  -- A record is read only if it may make a difference.
  if age > oldest then oldest = math.max(oldest, age - delay_of(id), 0) end
end

local function look(line)
  local from = '-inf'
  for _ = 1, 64 do
    local found = call('ZRANGEBYSCORE', line, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 8)
    if #found == 0 then break end
    local base = base_of(tonumber(found[2]))
    for i = 1, #found, 2 do
      local place = tonumber(found[i + 1])
      if base_of(place) ~= base then break end
      look_at(found[i], place - base)
    end
    from = string.format('%.0f', base + SPAN)
  end
end

look(READY)
if suspected then look(SUSPECTS) end
for kind in pairs(standing) do
  for _, letter in ipairs({ 'r', 's' }) do
    local line, from = line_of(kind, letter), nil
    for _ = 1, 64 do
      local members = first_of(line, 8, from)
      if #members == 0 then break end
      local base = base_of((read_member(line, members[1])))
      for _, member in ipairs(members) do
        local place, id = read_member(line, member)
        if base_of(place) ~= base then break end
        look_at(id, place - base)
      end
      from = line .. struct.pack('>I2', base / SPAN + 8193)
    end
  end
end
return math.floor(oldest)
