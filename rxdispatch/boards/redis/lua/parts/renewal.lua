-- Parts: ranges, places, write_range, claimed_between
-- Keys: CLAIMED, LEASES
-- Extends the leases of claimed tasks.

-- Notes that *token* is renewed.
local function renew(token)
  local range = range_of(token)
  if not range.renewed then range.renewed, range.held = {}, 0 end
  if not range.renewed[token] then range.held = range.held + 1 end
  range.renewed[token] = true
end

-- Writes the claimed tasks of a range as ranges of their own: each run of tokens that were all
-- renewed, or all not. Those that were renewed are not handed over any more.
local function divide(range, lease)
  local _, tokens = claimed_between(range.first, range.last)
  local deadline = tonumber(call('ZSCORE', LEASES, range.first) or now)
  drop_range(range.first)
  latest, by_first[range.first] = nil, nil
  local places = places_of(range)
  local start = 1
  for i = 1, #tokens do
    local renewed = range.renewed[tokens[i]]
    if i == #tokens or range.renewed[tokens[i + 1]] ~= renewed then
      local some = {}
      for token = tokens[start], tokens[i] do
        some[#some + 1] = places[token - range.first + 1] or '0'
      end
      local holder = { worker = range.worker, inbox = range.inbox, handed = range.handed and not renewed }
      write_range(tokens[start], #some, holder, some, renewed and now + lease or deadline)
      start = i + 1
    end
  end
end

-- Writes what was renewed: until *lease* microseconds from now.
local function write_renewals(lease)
  for _, range in ipairs(ranges) do
    if range.renewed then
      if not range.handed and call('ZCOUNT', CLAIMED, range.first, range.last) == range.held then
        call('ZADD', LEASES, now + lease, range.first)
        due(now + lease)
      else
        divide(range, lease)
      end
      range.renewed = nil
    end
  end
end
