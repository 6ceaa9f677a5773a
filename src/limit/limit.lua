-- KEYS: one a rule. ARGV, for each: its algorithm, amount, period in microseconds, burst, debt, age, cost and lag.
-- A debt is taken whether it is there or not, as of so many microseconds ago; the costs are taken where every rule has its
-- own. What others have taken may be told so many microseconds later (lag): so long a bucket is kept that is full again.
-- Time is this server's.
-- Answers 1 where all have it, else 0; then for each rule: how long until it has it, what is left, when all is back.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local passes, rules = 1, {}

local function bucket(rule, kept)
  local each = rule.period / rule.amount
  local full = math.max(tonumber(kept) or 0, now - rule.age) + rule.debt * each
  local wait = math.max(full, now) + rule.cost * each - now - rule.burst * each
  rule.wait = wait > 0.5 and math.ceil(wait) or 0
  rule.write = function(cost)
    if cost > 0 then full = math.max(full, now) + cost * each end
    rule.left = math.floor((rule.burst * each - math.max(full - now, 0)) / each + 0.001)
    rule.reset = math.max(full - now, 0)
    return string.format('%.2f', full), rule.reset + rule.lag
  end
end

-- When the month of now ends, in UTC. Years begin in March here.
local function month_end()
  local function since(year)
    return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
  end
  local day = math.floor(now / 86400000000) + 719468
  local year = math.floor(day * 400 / 146097)
  if since(year + 1) <= day then year = year + 1 elseif since(year) > day then year = year - 1 end
  local month = math.floor((5 * (day - since(year)) + 2) / 153)
  local ends = month == 11 and since(year + 1) or since(year) + math.floor((153 * (month + 1) + 2) / 5)
  return (ends - 719468) * 86400000000
end

local function fixed(rule, kept)
  local ends, used = string.match(kept, '^(%d+) (%d+)$')
  ends, used = tonumber(ends), tonumber(used)
  if not ends or ends <= now then
    ends = rule.period == 0 and month_end() or (math.floor(now / rule.period) + 1) * rule.period
    used = 0
  end
  used = math.max(used + rule.debt, 0)
  rule.wait = used + rule.cost > rule.amount and ends - now or 0
  rule.write = function(cost)
    used = used + cost
    rule.left, rule.reset = rule.amount - used, ends - now
    return string.format('%.0f %.0f', ends, used), rule.reset
  end
end

local function sliding(rule, kept)
  local begins = math.floor(now / rule.period) * rule.period
  local since, before, used = string.match(kept, '^(%d+) (%d+) (%d+)$')
  since, before, used = tonumber(since), tonumber(before), tonumber(used)
  if not since or since + rule.period < begins then
    before, used = 0, 0
  elseif since < begins then
    before, used = used, 0
  end
  used = math.max(used + rule.debt, 0)
  local left = begins + rule.period - now
  local counted = math.ceil(before * left / rule.period) + used
  rule.wait = 0
  if counted + rule.cost > rule.amount then
    local room = rule.amount - rule.cost - used
    if room >= 0 then
      rule.wait = left - room * rule.period / math.max(before, 1)
    else
      rule.wait = left + rule.period - math.max(rule.amount - rule.cost, 0) * rule.period / math.max(used, 1)
    end
    rule.wait = math.max(math.ceil(rule.wait), 1)
  end
  rule.write = function(cost)
    used = used + cost
    rule.left = rule.amount - counted - cost
    rule.reset = used > 0 and left + rule.period or before > 0 and left or 0
    return string.format('%.0f %.0f %.0f', begins, before, used), left + rule.period
  end
end

local algorithms = { bucket = bucket, fixed = fixed, sliding = sliding }
for at, key in ipairs(KEYS) do
  local first = (at - 1) * 8
  local function number(place) return tonumber(ARGV[first + place]) end
  local rule = { amount = number(2), period = number(3), burst = number(4) }
  rule.debt, rule.age, rule.cost, rule.lag = number(5), number(6), number(7), number(8)
  algorithms[ARGV[first + 1]](rule, redis.call('GET', key) or '')
  if rule.wait > 0 and rule.cost > 0 then passes = 0 else rule.wait = 0 end
  rules[at] = rule
end

local answer = { passes }
for at, key in ipairs(KEYS) do
  local rule = rules[at]
  local cost = passes == 1 and rule.cost or 0
  local value, lives = rule.write(cost)
  if cost ~= 0 or rule.debt ~= 0 then
    redis.call('SET', key, value, 'PX', math.max(math.ceil(lives / 1000), 1))
  end
  answer[#answer + 1] = math.ceil(rule.wait)
  answer[#answer + 1] = math.max(rule.left, 0)
  answer[#answer + 1] = math.ceil(rule.reset)
end
return answer
