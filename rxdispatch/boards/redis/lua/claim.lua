-- Parts: session, due_in
-- Keys: CLAIMED, READY, SUSPECTS, TASKS
-- Sweeps, then claims ready tasks; a worker that gets fewer than it asks for parks for the rest.
-- ARGV 9: limit, 10: lease in microseconds, 11: worker, 12: how many claims of this session the
-- client never read the reply to; then their slots and numbers; then the worker's inbox or '', its
-- class of kinds, the token up to which it has read everything, how many tasks may be handed to it,
-- and how it waits: 'h' to be handed tasks, 't' to be told only, '' to find out which, 'n' not at
-- all, 'l' to leave for good; then 'any', or 'only' and ids, or 'kinds' and kinds, or to leave 'seen'
-- and what else it has read.
-- Reply: {first token, microseconds until a task is due or -1, ids, records, tries, ids whose
-- records are gone, last token, room, workers that are parked, deliveries that were not read, how
-- the worker waits, tasks that lapsed in deliveries, the time}; the i-th id has the token
-- first + i - 1. Each delivery is {first token, tokens, ids, records, tries}. Of the workers that are
-- parked only timekeepers are told when a task is due.
-- For a repeated request, the script keeps the last token, the first one and the count (plus MORE if
-- more was due at once). The reply to it has the claims with these tokens that are still held; the
-- others are false.
local limit, lease, worker = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local at = 18 + 2 * ARGV[12]
local inbox, class, read = ARGV[at - 5], ARGV[at - 4], tonumber(ARGV[at - 3])
local places_free, mode = tonumber(ARGV[at - 2]), ARGV[at - 1]
local kind = ARGV[at]
local MORE = 2147483648
-- Insert: take, read_later, write_range

if again then
  local last, base, count = struct.unpack('>ddI4', again)
  more, count = count >= MORE, count % MORE
  local ids, records, history = {}, {}, {}
  for i = 1, count do ids[i], records[i], history[i] = false, false, false end
  if count > 0 then
    local held, tokens = claimed_between(base, base + count - 1)
    for n, id in ipairs(held) do
      local i = tokens[n] - base + 1
      ids[i] = id
      records[i] = call('HGET', TASKS, id)
      history[i] = counts_of(call('HGET', TRIES, id))
    end
  end
  if inbox ~= '' and mode ~= 'l' then read_later(inbox, read, last) end
  local room = mine and mine.room or 0
  return { base, due_in(), ids, records, history, {}, last, room, 0, later, mode, 0, now }
end

-- A full server allows HDEL, and after its first write a script may also use memory: claims must
-- pass, because a task that was worked on frees its memory.
call('HDEL', SESSION, '')

idle = ARGV[12] == '0' and ARGV[8] ~= '1' and now < next_due
if ARGV[12] ~= '0' then
  -- Insert: abandon
  for i = 13, at - 7, 2 do abandon(ARGV[i], tonumber(ARGV[i + 1])) end
end
if now >= next_due then
  -- Insert: sweep
end
if inbox ~= '' then
  read_later(inbox, read, mode == 'l' and -1 or last_token)
  if handed > 0 then extend_later() end
  limit = math.max(0, limit - handed)
end

-- Also while the board is paused: the worker may park.
if kind == 'kinds' then flag('k') end
if limit > 0 and not flagged('p') then
  if kind == 'only' then
    -- Insert: take_ids
  elseif kind == 'kinds' or aside_field ~= '' or paused_field ~= '' then
    -- Insert: take_kinds
  else
    -- Insert: take_best
  end
end

local count, base = #ids, 0
if count > 0 then
  base = tokens(count)
  local marks = {}
  for i, id in ipairs(ids) do
    marks[2 * i - 1] = base + i - 1
    marks[2 * i] = id
  end
  call('ZADD', CLAIMED, unpack(marks))
  write_range(base, count, { worker = worker, inbox = inbox }, places, now + lease)
  if suspected then
    -- Insert: held
    for i, id in ipairs(ids) do
      if history[i] then hold(id, select(2, struct.unpack('>I4I4', history[i])), worker) end
    end
    woke_suspect = woke_suspect or call('ZCARD', SUSPECTS) > 0
  end
  if heard then
    -- Insert: tries
    for i, id in ipairs(ids) do
      event('claimed', id, base + i - 1, tries(id) + 1, worker, nil, records[i])
    end
  end
end
idle = idle and count + handed + #vanished == 0

local room, parked, due_at = 0, 0, more and 0 or due_in()
local upto = last_token
if inbox ~= '' then
  -- What was claimed ahead of the room below is not for a worker that waits anyway.
  if not more and mode ~= 'n' then
    room = math.max(0, math.min(limit - count, places_free - handed - count, 65535))
  end
  -- Insert: park_worker, keep_time
  if keeps_time(inbox, room > 0) then
    parked = 0
  elseif not more and room > 0 then
    due_at = -1
  end
end
-- A worker without room may have been told, and must pass on what it leaves.
if flagged('w') and (woke or woke_suspect or next(gone) or count == limit) then
  -- Insert: hand_over
end
if ended then
  -- Insert: trim_dead, hint_joined
end
-- Insert: finish
if not idle then keep(struct.pack('>ddI4', upto, base, count + (more and MORE or 0))) end
return { base, due_at, ids, records, history, vanished, upto, room, parked, later, mode,
  undelivered, now }
