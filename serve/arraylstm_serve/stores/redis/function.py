"""The function that makes changes inside Redis or Valkey, in the Lua that both run."""

from __future__ import annotations

from hashlib import sha256

from arraylstm_serve.stores.record import HEADER

_BODY = f"""
-- A record's header, as in record.py; Lua counts from 1: stamp 17 to 40, write ids of 8 bytes from 33 to {HEADER}.
-- KEYS: records of one slot. ARGV: the time to live in ms; for each key the expected stamp and the record, '' for none.
-- Returns for each key 1 (applied), 0 (stale) or the text of an error. The rule is that of `judge` in base.py.
local function change(key, expected, record, ttl)
  local head = redis.pcall('GETRANGE', key, 0, {HEADER - 1})
  if type(head) == 'table' then return head.err end
  if head ~= '' and string.sub(head, 1, 3) ~= 'ALS' then return 'the key holds something else than a record' end
  if string.sub(head, 17, 40) == expected then
    local done
    if record == '' then done = redis.pcall('DEL', key) else done = redis.pcall('SET', key, record, 'PX', ttl) end
    return type(done) == 'table' and done.err or 1
  end
  if record == '' then return head == '' and 1 or 0 end
  for place = 33, {HEADER - 7}, 8 do
    if string.sub(head, place, place + 7) == string.sub(record, 33, 40) then return 1 end
  end
  return 0
end

local function commit(keys, args)
  local outcomes = {{}}
  for place, key in ipairs(keys) do
    outcomes[place] = change(key, args[2 * place], args[2 * place + 1], args[1])
  end
  return outcomes
end
"""

COMMIT = f"arraylstm_commit_{sha256(_BODY.encode()).hexdigest()[:12]}"
"""The function's name. It follows from what the function does, so servers of different versions do not meet."""

LIBRARY = f"#!lua name={COMMIT}\n{_BODY}\nredis.register_function('{COMMIT}', commit)\n"
"""What FUNCTION LOAD takes."""
