-- Parts: ranges, events
-- Extends leases.
-- ARGV 6: lease in microseconds, 7: how many; then the ids, then their tokens.
-- Reply: '1' where the token still holds, else '0'. A repeated request only extends the leases
-- again.
-- A full server allows ZREM, and after its first write a script may also use memory: a renewal must
-- pass.
local lease, count = tonumber(ARGV[6]), tonumber(ARGV[7])
call('ZREM', LEASES, '')
local ids = {}
for i = 1, count do ids[i] = ARGV[7 + i] end
local marks = count > 0 and call('ZMSCORE', CLAIMED, unpack(ids)) or {}
local answer = {}
for i = 1, count do
  local token = tonumber(marks[i] or '')
  if token and token == tonumber(ARGV[7 + count + i]) then
    answer[i] = '1'
    local range = range_of(token)
    if not range.renewed then range.renewed, range.held = {}, 0 end
    if not range.renewed[token] then range.held = range.held + 1 end
    range.renewed[token] = true
  else
    answer[i] = '0'
  end
end

-- Writes the claimed tasks of a range that was renewed in part as ranges of their own: each run of
-- tokens that were all renewed, or all not.
local function split(range)
  -- Insert: places, write_range, claimed_between
  local _, tokens = claimed_between(range.first, range.last)
  local deadline = tonumber(call('ZSCORE', LEASES, range.first) or now)
  drop_range(range.first)
  local places = places_of(range)
  local start = 1
  for i = 1, #tokens do
    local renewed = range.renewed[tokens[i]]
    if i == #tokens or range.renewed[tokens[i + 1]] ~= renewed then
      local some = {}
      for token = tokens[start], tokens[i] do
        some[#some + 1] = places[token - range.first + 1] or '0'
      end
      write_range(tokens[start], #some, range.worker, some, renewed and now + lease or deadline)
      start = i + 1
    end
  end
end

for _, range in ipairs(ranges) do
  if call('ZCOUNT', CLAIMED, range.first, range.last) == range.held then
    call('ZADD', LEASES, now + lease, range.first)
    due(now + lease)
  else
    split(range)
  end
end
-- Insert: finish
return table.concat(answer)
