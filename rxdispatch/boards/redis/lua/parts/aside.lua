-- Parts: kinds
-- Keys: ASIDE, PLACE
-- Ready tasks that stand aside: a worker that did not know their kind, or claimed while it was
-- paused, has come across them. ASIDE has a line for the tasks of each kind without a crash behind
-- them ('r'), and one for the others ('s'): members of one score, in the order of their bytes, which
-- is that of their places. PLACE has the member of each task, to find it by its id.
local standing, standing_changed = read_kinds(aside_field), false

local function line_of(kind, letter)
  return struct.pack('>I2', #kind) .. kind .. letter
end

local function member_of(kind, letter, id, place)
  local base = math.floor(place / SPAN)
  return line_of(kind, letter) .. struct.pack('>I2I8', base + 8192, place - base * SPAN) .. id
end

-- Returns the place and id of a member of *line*.
local function read_member(line, member)
  local base, number, at = struct.unpack('>I2I8', member, #line + 1)
  return (base - 8192) * SPAN + number, string.sub(member, at)
end

local function put_aside(kind, letter, id, place)
  if not standing[kind] then standing[kind], standing_changed = true, true end
  local member = member_of(kind, letter, id, place)
  call('ZADD', ASIDE, 0, member)
  call('HSET', PLACE, id, member)
end

-- Stores which kinds have tasks aside: once in a script, as there may be a thousand new ones.
local function write_standing()
  if standing_changed then
    write_kinds('aside', standing)
    aside_field, standing_changed = meta[#meta], false
  end
end

-- Returns the members of *line*, at most *count*, best first; those behind *after*, if it is given.
local function first_of(line, count, after)
  return call('ZRANGEBYLEX', ASIDE, after and '(' .. after or '[' .. line, '(' .. line .. '\255',
    'LIMIT', 0, count)
end
