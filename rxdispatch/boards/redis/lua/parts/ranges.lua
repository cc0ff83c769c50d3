-- Parts: head
-- Keys: CLAIMED, RANGES, LEASES
-- The marks of claimed tasks. The tasks of one claim get consecutive tokens, a range, and share
-- one lease. RANGES has a member for each range, scored by its first token: that token, how many
-- there are, whether it was handed over and is not confirmed, the worker, its inbox, and the places
-- that the tasks had. LEASES has the first token of each range, scored by when the lease lapses.

local function read_range(member)
  -- Not written by this script: whatever it is, it holds no task.
  if not member or #member < 14 then return nil end
  local first, count, handed, length, size, at = struct.unpack('>dI2BI2B', member)
  local inbox = at + length
  return { first = first, last = first + count - 1, handed = handed == 1,
    worker = string.sub(member, at, inbox - 1), inbox = string.sub(member, inbox, inbox + size - 1),
    rest = string.sub(member, inbox + size) }
end

-- The ranges that this script has looked up: in order, by their first tokens, and the last one.
local ranges, by_first, latest = {}, {}, nil

-- Returns the range of a token that is in CLAIMED.
local function range_of(token)
  if latest and token >= latest.first and token <= latest.last then return latest end
  local range = read_range(
    call('ZRANGE', RANGES, token, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1])
  if not range or token > range.last then
    -- Its range is lost: the task goes back to the front of its board.
    range = { first = token, last = token, worker = '', inbox = '', rest = '' }
  end
  latest = by_first[range.first]
  if not latest then
    latest = range
    by_first[range.first] = range
    ranges[#ranges + 1] = range
  end
  return latest
end

local function drop_range(first)
  call('ZREMRANGEBYSCORE', RANGES, first, first)
  call('ZREM', LEASES, first)
end

-- Removes the ranges that were looked up and have no claimed task any more.
local function close_ranges()
  for _, range in ipairs(ranges) do
    if range.first == range.last or call('ZCOUNT', CLAIMED, range.first, range.last) == 0 then
      drop_range(range.first)
    end
  end
end
