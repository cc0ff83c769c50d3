-- Parts: head
-- Keys: PARKED, INBOXES, CLAIMED, META
-- Where workers wait. PARKED has a member for each inbox with room, and all have the same score, so
-- that the server keeps them in the order of their bytes: the class of kinds, then most room, then
-- heard of last. INBOXES has what is stored of each inbox that is parked or has deliveries which
-- its worker may not have read.
local INBOX = string.sub(META, 1, -5) .. 'inbox:'
-- The class of all kinds.
local ALL = string.rep('\0', 8)
-- How long a worker has to confirm what is handed to it, in microseconds.
local DELIVERY_LEASE = 2000000
-- How many inboxes that nobody listens to one script tries.
local deaf = 16

local function line_of_inbox(inbox)
  return inbox.class .. struct.pack('>I2I8', 65535 - inbox.room, 9007199254740992 - inbox.heard)
    .. inbox.name
end

-- Returns what is stored of an inbox, or nil. In *unread* are the first token (8 bytes) and the size
-- (2) of each delivery.
local function read_inbox(name)
  local stored = call('HGET', INBOXES, name)
  if not stored or #stored < 29 then return nil end
  local class, room, heard, last, told, length, at = struct.unpack('>c8I2ddBI2', stored)
  return { name = name, class = class, room = room, heard = heard, last = last, told = told == 1,
    worker = string.sub(stored, at, at + length - 1), unread = string.sub(stored, at + length) }
end

local function store_inbox(inbox)
  call('HSET', INBOXES, inbox.name, inbox.class .. struct.pack('>I2ddBI2', inbox.room, inbox.heard,
    inbox.last, inbox.told and 1 or 0, #inbox.worker) .. inbox.worker .. inbox.unread)
end

-- Parks an inbox that has other room now. *before* is its member of PARKED, if it has one.
local function park(inbox, room, before)
  inbox.room = room
  local line = line_of_inbox(inbox)
  if room > 0 then
    -- First this: a key that was empty in between would not expire any more.
    call('ZADD', PARKED, 0, line)
    flag('w')
  end
  if before and (room == 0 or before ~= line) then call('ZREM', PARKED, before) end
  store_inbox(inbox)
end

-- Removes an inbox; but keeps the list of what its worker may not have read, while it matters.
local function unpark(inbox)
  if inbox.room > 0 then call('ZREM', PARKED, line_of_inbox(inbox)) end
  inbox.room = 0
  for at = 1, #inbox.unread, 10 do
    local first, count = struct.unpack('>dI2', inbox.unread, at)
    if call('ZCOUNT', CLAIMED, first, first + count - 1) > 0 then
      store_inbox(inbox)
      return
    end
  end
  call('HDEL', INBOXES, inbox.name)
end

local function forget(inbox)
  if inbox.room > 0 then call('ZREM', PARKED, line_of_inbox(inbox)) end
  call('HDEL', INBOXES, inbox.name)
end

-- Sends a message; returns whether anybody listens. Through a proxy nobody can know.
local function send(inbox, message)
  if call('PUBLISH', INBOX .. inbox.name, message) > 0 or inbox.told then return true end
  unpark(inbox)
  deaf = deaf - 1
  return false
end
