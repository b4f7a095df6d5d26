//! What Redis has to do in one step, as Lua. No payload is an argument or an answer.
//!
//! Sent as text each time: a server that was restarted has forgotten what it was taught, and the text is short.
use redis::Cmd;

use super::keys::{EntryId, GROUP, Keys};

/// Entries named in one call, so that no call holds up the server for long.
pub(super) const MAX_ENTRIES: usize = 500;

/// Makes room for a frame. The count can only be too high for as long as the stream is not empty: a producer may
/// have died between this and its XADD, or somebody deleted entries. So an empty stream corrects it.
const RESERVE: &str = "
local bytes, len = tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[1])
if bytes + len > tonumber(ARGV[2]) then
  if redis.call('XLEN', KEYS[1]) > 0 then return 0 end
  bytes = 0
end
redis.call('SET', KEYS[2], bytes + len)
return 1";

pub(super) fn reserve(keys: &Keys, len_bytes: usize, max_queue_bytes: usize) -> Cmd {
    let mut command = script(RESERVE, &[&keys.stream, &keys.bytes]);
    command.arg(len_bytes).arg(max_queue_bytes);
    command
}

/// Removes entries, frees what they took, and reports what became of them: all or nothing, so that an entry that
/// is gone without a report is lost. Only what was really deleted is freed.
const SETTLE: &str = "
local n, freed = tonumber(ARGV[2]), 0
for i = 3, 1 + 2 * n, 2 do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then freed = freed + tonumber(ARGV[i + 1]) end
end
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[2])
else
  local bytes = tonumber(redis.call('GET', KEYS[2]) or '0') - freed
  redis.call('SET', KEYS[2], math.max(bytes, 0))
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', '100000', '*', unpack(ARGV, 3 + 2 * n))
return freed";

/// `entries` with the bytes each took; `reports` as field and value. At most [`MAX_ENTRIES`] of each.
pub(super) fn settle(keys: &Keys, entries: &[(EntryId, usize)], reports: &[(&str, String)]) -> Cmd {
    let mut command = script(SETTLE, &[&keys.stream, &keys.bytes, &keys.reports]);
    command.arg(GROUP).arg(entries.len());
    for (entry, len_bytes) in entries {
        command.arg(entry.to_string()).arg(len_bytes);
    }
    for (field, value) in reports {
        command.arg(field).arg(value);
    }
    command
}

/// For each entry whether it is still to come. One that was delivered and is nobody's never will: somebody deleted
/// the consumer that had it. It is removed, and so gone like one that was evicted.
const EXIST: &str = "
local function number(id)
  local time, number = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(time), tonumber(number)
end
local group, time, at
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, found in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local is = {}
    for i = 1, #found, 2 do is[found[i]] = found[i + 1] end
    if is.name == ARGV[1] then
      group = ARGV[1]
      time, at = number(is['last-delivered-id'])
    end
  end
end
local exist = {}
for i = 2, #ARGV do
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if entry and group then
    local of_entry, at_entry = number(ARGV[i])
    local was_delivered = of_entry < time or (of_entry == time and at_entry <= at)
    if was_delivered and #redis.call('XPENDING', KEYS[1], group, ARGV[i], ARGV[i], 1) == 0 then
      redis.call('XDEL', KEYS[1], ARGV[i])
      local bytes = tonumber(redis.call('GET', KEYS[2]) or '0') - #(entry[2][2] or '')
      redis.call('SET', KEYS[2], math.max(bytes, 0))
      entry = nil
    end
  end
  exist[#exist + 1] = entry and 1 or 0
end
return exist";

pub(super) fn exist(keys: &Keys, entries: &[EntryId]) -> Cmd {
    let mut command = script(EXIST, &[&keys.stream, &keys.bytes]);
    command.arg(GROUP);
    for entry in entries {
        command.arg(entry.to_string());
    }
    command
}

/// Keeps entries that are still this consumer's: they count as touched `ARGV[3]` milliseconds ago, and as delivered
/// `ARGV[4]` times less often. Plain XCLAIM would take back what another processor took over meanwhile. Returns the
/// positions of those that are not ours.
const KEEP: &str = "
local lost = {}
for i = 5, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if #pending == 0 then
    lost[#lost + 1] = i - 5
  else
    local times = math.max(pending[1][4] - ARGV[4], 0)
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', ARGV[3], 'RETRYCOUNT', times, 'JUSTID')
  end
end
return lost";

pub(super) fn keep(keys: &Keys, consumer: &str, entries: &[EntryId]) -> Cmd {
    keep_as(keys, consumer, entries, 0, 0)
}

/// Entries count as untouched for `idle_ms`, and one that was not seen as if it had not been delivered this time.
pub(super) fn let_go(keys: &Keys, consumer: &str, entries: &[EntryId], idle_ms: u64, seen: bool) -> Cmd {
    keep_as(keys, consumer, entries, idle_ms, u8::from(!seen))
}

fn keep_as(keys: &Keys, consumer: &str, entries: &[EntryId], idle_ms: u64, less: u8) -> Cmd {
    let mut command = script(KEEP, &[&keys.stream]);
    command.arg(GROUP).arg(consumer).arg(idle_ms).arg(less);
    for entry in entries {
        command.arg(entry.to_string());
    }
    command
}

/// Deletes consumers without pending entries: those idle for `ARGV[2]` milliseconds, and the one named `ARGV[4]`.
/// In one step, because deleting one that has entries would leave these with nobody. Returns how many were
/// active within `ARGV[3]` milliseconds.
const TIDY: &str = "
local live = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local is = {}
  for i = 1, #consumer, 2 do is[consumer[i]] = consumer[i + 1] end
  if is.pending == 0 and (is.idle > tonumber(ARGV[2]) or is.name == ARGV[4]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], is.name)
  elseif is.idle <= tonumber(ARGV[3]) then
    live = live + 1
  end
end
return live";

pub(super) fn tidy(keys: &Keys, max_idle_ms: u64, live_within_ms: u64, leaving: Option<&str>) -> Cmd {
    let mut command = script(TIDY, &[&keys.stream]);
    command.arg(GROUP).arg(max_idle_ms).arg(live_within_ms).arg(leaving.unwrap_or_default());
    command
}

/// Entries, bytes, and the age of the oldest entry in milliseconds.
const DEPTH: &str = "
local age, first = 0, redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if first then
  local now = redis.call('TIME')
  age = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(first[1], '^%d+'))
end
return {redis.call('XLEN', KEYS[1]), tonumber(redis.call('GET', KEYS[2]) or '0'), math.max(age, 0)}";

pub(super) fn depth(keys: &Keys) -> Cmd {
    script(DEPTH, &[&keys.stream, &keys.bytes])
}

fn script(text: &str, keys: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(keys.len()).arg(keys);
    command
}
