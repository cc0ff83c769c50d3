-- Parts: head
-- Keys: SESSION
-- ARGV 6: the slot of this request, 7: its number, 8: '1' if the session must be kept for longer.
-- A session has few slots, and each keeps the reply to its last request. A request whose number is
-- kept is a repetition and gets that reply. One with a lower number comes too late: its caller has
-- the reply, or has given up, and used the slot again.
local SLOT, NUMBER = ARGV[6], tonumber(ARGV[7])
local last = call('HGET', SESSION, SLOT)
local again = false
if last then
  local number, at = struct.unpack('>d', last)
  if number == NUMBER then
    again = string.sub(last, at)
  elseif number > NUMBER then
    return redis.error_reply('LATE')
  end
end

local function keep(reply)
  call('HSET', SESSION, SLOT, struct.pack('>d', NUMBER) .. reply)
  if not last or ARGV[8] == '1' then call('PEXPIRE', SESSION, 180000) end
  return reply
end
