-- Parts: inboxes, kinds
-- Keys: TAKERS
-- Finds the parked worker for a task. TAKERS has, for 'k' and a kind, the classes of kinds that have
-- it; for 'c' and a class, its kinds.
local classes_of = {}

local function classes_with(kind)
  if not classes_of[kind] then
    -- A claim of some kinds sets the flag.
    classes_of[kind] = flagged('k') and call('HGET', TAKERS, 'k' .. kind) or ''
  end
  return classes_of[kind]
end

-- Whether a worker of *class* takes tasks of *kind*.
local function takes(class, kind)
  if class == ALL then return true end
  local classes = classes_with(kind)
  for at = 1, #classes, 8 do
    if string.sub(classes, at, at + 7) == class then return true end
  end
  return false
end

-- Returns the first member of PARKED in a range, and what it is ordered by within its class.
local function first_parked(from, below)
  local member = call('ZRANGEBYLEX', PARKED, from, below, 'LIMIT', 0, 1)[1]
  return member, member and string.sub(member, 9)
end

-- Returns the inbox of the best parked worker for *kind*, of any kind if it is nil; nil if there is
-- none.
local function taker_of(kind)
  while deaf > 0 do
    local best, rank
    if not kind then
      best = first_parked('-', '+')
    else
      best, rank = first_parked('[' .. ALL, '(' .. ALL .. '\255\255')
      local classes = classes_with(kind)
      for at = 1, math.min(#classes, 128), 8 do
        local class = string.sub(classes, at, at + 7)
        local member, other = first_parked('[' .. class, '(' .. class .. '\255\255')
        if member and (not best or other < rank) then best, rank = member, other end
      end
    end
    if not best then return nil end
    local inbox = read_inbox(string.sub(best, 19))
    if inbox and line_of_inbox(inbox) == best then return inbox end
    -- What is stored of it was lost.
    call('ZREM', PARKED, best)
  end
end

-- Tells the best parked worker for *kind* to claim, which parks it again; returns whether there is
-- one.
local function announce(kind)
  while true do
    local inbox = taker_of(kind)
    if not inbox then return false end
    if send(inbox, 'w') then
      unpark(inbox)
      return true
    end
  end
end
