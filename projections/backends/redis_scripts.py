"""What Redis does at once, as scripts: a script is applied as a whole, to its copies and its file too.

A projection's side is one field of the hash ``side``; whoever changes anything gives the bytes that stood there when
they looked, and nothing is done if others do now. A side's documents lie in a hash by view and key, and their names in
a sorted set, all of score 0, so that they can be read in order. Kinds are looked at before anything is written: an
error half way would leave the first half.
"""

_CHUNK = 2_000
"""How many values a command takes; Lua's stack holds 8,000."""

APPLY = f"""
local side, docs, names, live, source = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
if (redis.call('HGET', side, ARGV[1]) or '') ~= ARGV[2] then return 0 end
if (redis.call('GET', source) or ARGV[9]) ~= ARGV[9] then return -1 end
local function kind(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end
if not (kind(docs, 'hash') and kind(names, 'zset') and kind(live, 'hash')) then
  return redis.error_reply('PARTYKIND a key of the projection holds something else')
end
redis.call('SET', source, ARGV[9], 'NX')
if ARGV[4] == '1' then redis.call('UNLINK', docs, names) end
local at = 10
local function each(count, width, work)
  local last = at + count * width - 1
  while at <= last do
    local upto = math.min(at + {_CHUNK} - 1, last)
    work(at, upto)
    at = upto + 1
  end
end
each(tonumber(ARGV[5]), 1, function(from, upto)
  redis.call('HDEL', docs, unpack(ARGV, from, upto))
  redis.call('ZREM', names, unpack(ARGV, from, upto))
end)
each(tonumber(ARGV[6]), 2, function(from, upto) redis.call('HSET', docs, unpack(ARGV, from, upto)) end)
each(tonumber(ARGV[7]), 2, function(from, upto) redis.call('ZADD', names, unpack(ARGV, from, upto)) end)
redis.call('HSET', side, ARGV[1], ARGV[3])
if ARGV[8] ~= '' then redis.call('HSET', live, ARGV[8], docs) end
redis.call('PUBLISH', side .. ':' .. ARGV[1], 'moved')
return 1
"""
"""Keys: side, documents, names, live, source. Arguments: the field, what stood, what stands, whether to begin empty,
how many names go, documents come, names come, whose live documents these are, if they are, and whose the keys are;
then those. The keys are claimed anew where Redis has lost everything: -1 if others were faster."""

SWAP = """
local side, live, docs, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if (redis.call('HGET', side, ARGV[1]) or '') ~= ARGV[2] then return 0 end
if (redis.call('HGET', side, ARGV[4]) or '') ~= ARGV[5] then return 0 end
redis.call('HSET', side, ARGV[1], ARGV[3], ARGV[4], ARGV[6])
redis.call('HSET', live, ARGV[7], KEYS[5])
redis.call('UNLINK', docs, names)
redis.call('PUBLISH', side .. ':' .. ARGV[1], 'moved')
return 1
"""
"""Keys: side, live, the documents and names that go, the documents that come. Arguments: for both sides the field, what
stood and what stands; the projection."""

GET = """
for _, docs in ipairs(redis.call('HVALS', KEYS[1])) do
  local found = redis.call('HGET', docs, ARGV[1])
  if found then return found end
end
return false
"""
"""A document of the live sides."""

SCAN = """
local found = {redis.call('HVALS', KEYS[1])}
for _, docs in ipairs(found[1]) do
  local names = redis.call('ZRANGEBYLEX', docs .. ':names', ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
  if #names > 0 then
    table.insert(found, names)
    table.insert(found, redis.call('HMGET', docs, unpack(names)))
  end
end
return found
"""
"""Documents of the live sides between two names, up to a number of each side; first, which the live sides are."""

CLAIM = """
local had = redis.call('GET', KEYS[1])
if had then return had end
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 'something else' end
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""
"""Whose the keys are: claimed, if there are none."""
