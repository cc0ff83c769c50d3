-- Parts: deliver, aside
-- Keys: READY, SUSPECTS, TASKS, EXPIRY, TRIES
-- Hands the best ready tasks to parked workers. Workers are told to claim what cannot be handed
-- over: a task with a crash behind it, one that has lapsed in a delivery, a large one; and what is
-- left after DELIVERIES deliveries or PAGES looks.
local DELIVERIES, PAGES, MOST = 4, 8, 16

local function hand_over()
  local parked = call('ZCARD', PARKED)
  if parked == 0 then
    flags = string.gsub(flags, 'w', '')
    return
  end
  if flagged('p') then return end
  local paused_kinds = read_kinds(paused_field)
  local used, skipped = 0, 0
  if woke_suspect then
    local id = call('ZRANGE', SUSPECTS, 0, 0)[1]
    if id and announce(kind_of(call('HGET', TASKS, id))) then used = 1 end
  end
  for kind in pairs(gone) do
    if not paused_kinds[kind] then announce(kind) end
  end
  local share = math.min(MOST, math.ceil(call('ZCARD', READY) / math.min(DELIVERIES, parked)))
  for _ = 1, PAGES do
    local found = call('ZRANGE', READY, skipped, skipped + MOST - 1, 'WITHSCORES')
    if #found == 0 then return end
    local ids, places = {}, {}
    for i = 1, #found, 2 do
      ids[#ids + 1], places[#places + 1] = found[i], found[i + 1]
    end
    local records = call('HMGET', TASKS, unpack(ids))
    local past = flagged('r') and call('HMGET', TRIES, unpack(ids)) or {}
    local limits = flagged('t') and call('ZMSCORE', EXPIRY, unpack(ids)) or {}
    for i in ipairs(ids) do
      past[i] = past[i] and #past[i] >= 9 and string.sub(past[i], 1, 9) or ''
    end
    -- Whether a task can be handed over; otherwise a worker has to claim it.
    local function fits(i)
      return records[i] and #ids[i] + #records[i] <= BYTES and (string.byte(past[i], 9) or 0) < 2
        and not (limits[i] and tonumber(limits[i]) <= now)
    end
    local at = 1
    while ids[at] do
      local kind = kind_of(records[at])
      local inbox = not paused_kinds[kind] and taker_of(kind)
      if not inbox then
        -- It must not hide those behind it.
        call('ZREM', READY, ids[at])
        put_aside(kind, 'r', ids[at], tonumber(places[at]))
        at = at + 1
      elseif used == DELIVERIES then
        -- A baton: the claim of the worker that is told hands over what it leaves.
        announce(kind)
        return
      elseif inbox.told or not fits(at) then
        announce(kind)
        used, skipped, at = used + 1, skipped + 1, at + 1
      else
        local some, size, last = { {}, {}, {}, {} }, 0, at
        while ids[last] and last - at < math.min(share, inbox.room) and fits(last) do
          size = size + #ids[last] + #records[last]
          local one = kind_of(records[last])
          if size > BYTES or paused_kinds[one] or not takes(inbox.class, one) then break end
          local n = last - at + 1
          some[1][n], some[2][n] = ids[last], places[last]
          some[3][n], some[4][n] = records[last], past[last]
          last = last + 1
        end
        if deliver(inbox, unpack(some)) then
          call('ZREM', READY, unpack(some[1]))
          used, at = used + 1, last
        end
      end
    end
  end
  announce()
end

hand_over()
write_standing()
