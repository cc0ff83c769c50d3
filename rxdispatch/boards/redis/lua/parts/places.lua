-- Parts: ranges
-- The places that claimed tasks had.
local function places_of(range)
  if not range.places then
    range.places = {}
    for place in string.gmatch(range.rest, '%S+') do range.places[#range.places + 1] = place end
  end
  return range.places
end

local function place_of(token)
  local range = range_of(token)
  return tonumber(places_of(range)[token - range.first + 1]) or 0
end
