-- Parts: session, due_in
-- Keys: CLAIMED, READY, TASKS
-- Sweeps, then claims ready tasks.
-- ARGV 9: limit, 10: lease in microseconds, 11: worker, 12: how many claims of this session the
-- client never read the reply to; then their slots and numbers; then 'any', or 'only' and ids, or
-- 'kinds' and kinds.
-- Reply: {first token, microseconds until a task is due or -1, ids, records, tries, ids whose
-- records are gone}; the i-th id has the token first + i - 1.
-- For a repeated request, the script keeps the first token and the count (plus MORE if more was due
-- at once). The reply to it has the claims with these tokens that are still held; the others are
-- false.
local limit, lease, worker = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local at = 13 + 2 * ARGV[12]
local kind = ARGV[at]
local MORE = 2147483648
-- Insert: take

if again then
  local base, count = struct.unpack('>dI4', again)
  more, count = count >= MORE, count % MORE
  local ids, records, history = {}, {}, {}
  for i = 1, count do ids[i], records[i], history[i] = false, false, false end
  if count > 0 then
    -- Insert: claimed_between
    local held, tokens = claimed_between(base, base + count - 1)
    for n, id in ipairs(held) do
      local i = tokens[n] - base + 1
      ids[i] = id
      records[i] = call('HGET', TASKS, id)
      history[i] = counts_of(call('HGET', TRIES, id))
    end
  end
  return { base, due_in(), ids, records, history, {} }
end

-- A full server allows HDEL, and after its first write a script may also use memory: claims must
-- pass, because a task that was worked on frees its memory.
call('HDEL', SESSION, '')

local ready_before
if now >= next_due or at > 14 then
  -- Insert: ready
  ready_before = ready_count()
end
if at > 14 then
  -- Insert: abandon
  for i = 13, at - 2, 2 do abandon(ARGV[i], tonumber(ARGV[i + 1])) end
end
if now >= next_due then
  -- Insert: sweep
end

if limit > 0 and not flagged('p') then
  if kind == 'only' then
    -- Insert: take_ids
  elseif kind == 'kinds' or aside_field ~= '' or paused_field ~= '' then
    if kind == 'kinds' then flag('k') end
    -- Insert: take_kinds
  else
    -- Insert: take_best
  end
end

local count, base = #ids, 0
if count > 0 then
  -- Insert: write_range
  if not known[1] then
    -- META was lost, but tokens that were ahead of the clock may be held.
    last_token = tonumber(call('ZRANGE', CLAIMED, 0, 0, 'REV', 'WITHSCORES')[2] or 0)
  end
  -- A foreign number as large as this would leave no room for further tokens.
  base = last_token < 9007199254740992 and math.max(last_token + 1, raw) or raw
  last_token = base + count - 1
  local marks = {}
  for i, id in ipairs(ids) do
    marks[2 * i - 1] = base + i - 1
    marks[2 * i] = id
  end
  call('ZADD', CLAIMED, unpack(marks))
  write_range(base, count, worker, places, now + lease)
  if suspected then
    -- Insert: held
    for i, id in ipairs(ids) do
      if history[i] then hold(id, select(2, struct.unpack('>I4I4', history[i])), worker) end
    end
  end
  if heard then
    -- Insert: tries
    for i, id in ipairs(ids) do
      event('claimed', id, base + i - 1, tries(id) + 1, worker, nil, records[i])
    end
  end
end
if ready_before then
  -- Insert: hint_ready
elseif count > 0 and known[12] and call('ZCARD', READY) == 0 then
  ready_before = 1
  -- Insert: hint_ready
end
if ended then
  -- Insert: trim_dead, hint_joined
end
-- Insert: finish
keep(struct.pack('>dI4', base, count + (more and MORE or 0)))
return { base, due_in(), ids, records, history, vanished }
