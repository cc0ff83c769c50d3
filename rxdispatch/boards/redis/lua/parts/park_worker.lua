-- Parts: inboxes, takers
-- Keys: TAKERS
-- Parks the worker of this claim, or notes that it has no room.

-- Notes which kinds *class* has; returns whether it was new. Where many classes have a kind, those
-- that nobody waits in go.
local function register()
  if class == ALL or call('HEXISTS', TAKERS, 'c' .. class) == 1 then return false end
  local kinds = {}
  for i = at + 1, #ARGV do kinds[i - at] = struct.pack('>I2', #ARGV[i]) .. ARGV[i] end
  call('HSET', TAKERS, 'c' .. class, table.concat(kinds))
  for i = at + 1, #ARGV do
    local classes = classes_with(ARGV[i])
    if #classes >= 128 then
      local kept = {}
      for place = 1, #classes, 8 do
        local one = string.sub(classes, place, place + 7)
        if first_parked('[' .. one, '(' .. one .. '\255\255') then
          kept[#kept + 1] = one
        else
          call('HDEL', TAKERS, 'c' .. one)
        end
      end
      classes = table.concat(kept)
    end
    classes_of[ARGV[i]] = classes .. class
    call('HSET', TAKERS, 'k' .. ARGV[i], classes_of[ARGV[i]])
  end
  return true
end

-- Looks whether those have gone that were not heard of lately.
local function look_for_the_gone()
  local below = '(' .. class .. '\255\255'
  local member = call('ZREVRANGEBYLEX', PARKED, below, '[' .. class, 'LIMIT', 0, 1)[1]
  local other = member and read_inbox(string.sub(member, 19))
  if other and now - other.heard > 5000000 + 200000 * parked then send(other, 'p') end
  if ARGV[8] == '1' or ARGV[at - 1] == '' then
    for _, name in ipairs(call('HRANDFIELD', INBOXES, 3)) do
      other = read_inbox(name)
      if not other or now - other.heard > 3600000000 then
        forget(other or { name = name, room = 0 })
      end
    end
  end
end

if mode == 'l' then
  if mine then
    -- Insert: put_back
    local seen = {}
    for i = at + 1, #ARGV do seen[tonumber(ARGV[i])] = true end
    for at = 1, #mine.unread, 10 do
      local first, count = struct.unpack('>dI2', mine.unread, at)
      if not seen[first] then put_back(first, first + count - 1) end
    end
    forget(mine)
  end
else
  if room > 0 and mode == '' then
    -- Through a proxy, a script cannot know who listens.
    mode = call('PUBLISH', INBOX .. inbox, 'p') == 1 and 'h' or 't'
  end
  if room > 0 then
    local new = register()
    local before = mine and mine.room > 0 and line_of_inbox(mine)
    mine = mine or { name = inbox, last = 0, unread = '' }
    mine.class, mine.heard, mine.told, mine.worker = class, now, mode == 't', worker
    park(mine, room, before)
    parked = call('ZCARD', PARKED)
    look_for_the_gone()
    if ARGV[8] == '1' or new or (parked == 1 and not before) then
      -- Should all workers be gone, these keys go too.
      for _, key in ipairs({ PARKED, INBOXES, TAKERS }) do call('PEXPIRE', key, 3600000) end
    end
  elseif mine then
    unpark(mine)
  end
end
