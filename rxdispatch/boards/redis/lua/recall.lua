-- Keys: SESSION
-- Asks what became of a request that the client has given up.
-- ARGV 1: its slot, 2: its number. Reply: the reply that the session keeps for it, or nil if it was
-- not executed. Then it never is: the slot now has its number, with an empty reply.
local stored = redis.call('HGET', SESSION, ARGV[1])
local number = tonumber(ARGV[2])
if stored then
  local kept, at = struct.unpack('>d', stored)
  if kept == number then return string.sub(stored, at) end
  if kept > number then return false end
end
-- A full server allows HDEL, and after its first write a script may also use memory.
redis.call('HDEL', SESSION, '')
redis.call('HSET', SESSION, ARGV[1], struct.pack('>d', number))
redis.call('PEXPIRE', SESSION, 180000)
return false
