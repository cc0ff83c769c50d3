"""
Lua scripts of :func:`from_redis_list`.

Invariant: at any time, an entry is in the source, or in the processing list of one worker that is
in the sorted set of workers. So it is found whichever process dies. The scores in the set are the
times, in milliseconds, at which the leases of the workers end.
"""

from __future__ import annotations

from typing import Final

from rxdispatch.store.scripts import Script

__all__ = ["BEAT", "LEAVE", "SETTLE"]

# KEYS: workers, source. ARGV: worker, lease, prefix of processing lists, side, when to forget.
# A dead worker stays in the set for a while: a server that has not noticed yet that the connection
# is gone may still move an entry for the worker.
BEAT: Final = Script("""
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'WITHSCORES')
local moved = 0
for i = 1, #dead, 2 do
  local held = ARGV[3] .. dead[i]
  while redis.call('LMOVE', held, KEYS[2], 'RIGHT', ARGV[4]) do moved = moved + 1 end
  if dead[i + 1] + ARGV[5] < now then redis.call('ZREM', KEYS[1], dead[i]) end
end
return moved
""")

# KEYS: processing, last, source. ARGV: number of the batch, seconds to keep its answers, side, and
# then for each entry 'd' (done) or 'b' (back) and the entry. The answers of the last batch are kept
# with its number, so a batch is carried out once, however often it is sent.
SETTLE: Final = Script("""
local last = redis.call('GET', KEYS[2])
if last then
  local number, answers = string.match(last, '^(%d+):(.*)$')
  if tonumber(number) >= tonumber(ARGV[1]) then return answers end
end
local answers = {}
for i = 4, #ARGV, 2 do
  local held = redis.call('LREM', KEYS[1], 1, ARGV[i + 1])
  if held == 1 and ARGV[i] == 'b' then
    redis.call(ARGV[3] == 'LEFT' and 'LPUSH' or 'RPUSH', KEYS[3], ARGV[i + 1])
  end
  answers[#answers + 1] = held
end
local found = table.concat(answers)
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. found, 'EX', ARGV[2])
return found
""")

# KEYS: workers, source, processing, last. ARGV: worker, side, '1' if its connection is certainly
# closed; otherwise the worker stays in the set, as after its death.
LEAVE: Final = Script("""
while redis.call('LMOVE', KEYS[3], KEYS[2], 'RIGHT', ARGV[2]) do end
redis.call('DEL', KEYS[4])
if ARGV[3] == '1' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], redis.call('TIME')[1] .. '000', ARGV[1])
end
return 1
""")
