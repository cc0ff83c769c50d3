-- Arguments: ids. Reads only.
-- Reply: epoch, seq, floor, a message with a row for each of the first ids, 0.
-- The message has at least one row, and about 1 MiB at most; the caller asks again for the rest.
-- A new epoch is not stored here, so the reply must not name it: the next call would make another.
if not epoch or founded then return { '', 0, 0, '', 0 } end
local PAGE = 1048576
local ids, list, bytes = {}, {}, 0
for at = REST, #ARGV do ids[#ids + 1] = ARGV[at] end
local records = call('HMGET', NODES, unpack(ids))
local ends = call('ZMSCORE', EXPIRY, unpack(ids))
local numbers = call('ZMSCORE', LOG, unpack(ids))
for i, id in ipairs(ids) do
  if records[i] then
    list[i] = row(RECORD, tonumber(numbers[i]), left(ends[i]), id, records[i])
    bytes = bytes + #records[i]
    if bytes > PAGE then break end
  else
    list[i] = row(TOMBSTONE, seq, 0, id, '')
  end
end
return { epoch, seq, floor, message(seq, list), 0 }
