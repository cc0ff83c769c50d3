-- Arguments: a number, and the most rows to return. Reads only.
-- Reply: epoch, seq, floor, the first rows after that number as a message, whether there are more.
-- A new epoch is not stored here, so the reply must not name it: the next call would make another.
if not epoch or founded then return { '', 0, 0, '', 0 } end
local PAGE = 1048576
local found = call('ZRANGEBYSCORE', LOG, '(' .. ARGV[REST], '+inf', 'WITHSCORES', 'LIMIT', 0,
  ARGV[REST + 1])
local ids, list, bytes = {}, {}, 0
for i = 1, #found, 2 do ids[#ids + 1] = found[i] end
if #ids > 0 then
  local records = call('HMGET', NODES, unpack(ids))
  local ends = call('ZMSCORE', EXPIRY, unpack(ids))
  for i, id in ipairs(ids) do
    local number = tonumber(found[2 * i])
    if records[i] then
      list[i] = row(RECORD, number, left(ends[i]), id, records[i])
      bytes = bytes + #records[i]
      if bytes > PAGE then break end
    else
      list[i] = row(TOMBSTONE, number, 0, id, '')
    end
  end
end
local more = #list < #ids or #ids == tonumber(ARGV[REST + 1])
return { epoch, seq, floor, message(seq, list), more and 1 or 0 }
