-- Before every search: its place in rate and quota is reserved, by a single call whose plans the
-- connection keeps; sent one by one, statements take longer to plan than to run.

-- Reserves calls, at most the requested number, or returns the reason it does not. One row lock, no waiting in the database:
--   GO         send `calls` of them, the first `wait_seconds` from now, each next `gap` seconds later; they count for `day`;
--              `probe`: this call shows whether the API answers
--   WAIT       a probe is under way: try again in `wait_seconds`
--   EXHAUSTED  nothing more until `until`
--   BLOCKED    these credentials were refused
CREATE OR REPLACE FUNCTION reserve_calls(
    p_api text, p_account text, p_credentials text, p_calls_per_second double precision,
    p_daily_quota integer, p_monthly_quota integer, p_probe_seconds double precision, p_calls integer,
    OUT verdict text, OUT wait_seconds double precision, OUT until timestamptz, OUT why text, OUT probe boolean,
    OUT calls integer, OUT gap double precision, OUT day date
) LANGUAGE plpgsql AS $$
DECLARE
    budget api_budget;
    moment timestamptz;
    used   integer;
BEGIN
    probe := false;
    SELECT * INTO budget FROM api_budget WHERE api = p_api AND account = p_account FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO api_budget (api, account) VALUES (p_api, p_account) ON CONFLICT DO NOTHING;
        SELECT * INTO budget FROM api_budget WHERE api = p_api AND account = p_account FOR UPDATE;
    END IF;
    moment := budget_clock();  -- after the lock: a caller that waited for it must not get a slot in the past
    day := budget_day(moment);
    calls := p_calls;
    IF budget.blocked = p_credentials THEN
        verdict := 'BLOCKED'; why := budget.blocked_why;
        RETURN;
    END IF;
    IF budget.exhausted_until > moment THEN
        verdict := 'EXHAUSTED'; until := budget.exhausted_until; why := budget.exhausted_why;
        RETURN;
    END IF;
    IF p_monthly_quota IS NOT NULL THEN
        SELECT coalesce(sum(u.reserved - u.refused_rate - u.refused_quota), 0) INTO used FROM api_usage u
         WHERE u.api = p_api AND u.account = p_account AND u.day >= date_trunc('month', reserve_calls.day)::date;
        calls := least(calls, p_monthly_quota - used);
        IF calls <= 0 THEN
            verdict := 'EXHAUSTED'; until := budget_midnight((date_trunc('month', day) + interval '1 month')::date);
            why := format('the month''s %s calls are used', p_monthly_quota);
            RETURN;
        END IF;
    END IF;
    -- The budget is locked here; concurrent changes of others only release calls.
    SELECT u.reserved - u.refused_rate - u.refused_quota INTO used FROM api_usage u
     WHERE u.api = p_api AND u.account = p_account AND u.day = reserve_calls.day;
    calls := least(calls, p_daily_quota - coalesce(used, 0));
    IF calls <= 0 THEN
        verdict := 'EXHAUSTED'; until := budget_midnight(day + 1);
        why := format('the day''s %s calls are used', p_daily_quota);
        RETURN;
    END IF;
    IF budget.exhausted_until IS NOT NULL OR budget.proven IS DISTINCT FROM p_credentials THEN
        IF budget.probing_since > moment - make_interval(secs => p_probe_seconds) THEN
            verdict := 'WAIT'; wait_seconds := 0.1;
            RETURN;
        END IF;
        probe := true;
        calls := 1;
    END IF;
    INSERT INTO api_usage AS usage (api, account, day, reserved) VALUES (p_api, p_account, reserve_calls.day, calls)
        ON CONFLICT ON CONSTRAINT api_usage_pkey DO UPDATE SET reserved = usage.reserved + excluded.reserved;
    verdict := 'GO';
    until := greatest(budget.next_slot_at, moment);
    wait_seconds := extract(epoch FROM until - moment);
    gap := 1 / (p_calls_per_second * current_pace(budget, moment));
    UPDATE api_budget
       SET next_slot_at = until + make_interval(secs => calls * gap),
           probing_since = CASE WHEN probe THEN moment ELSE probing_since END
     WHERE api = p_api AND account = p_account;
END $$;
DROP FUNCTION IF EXISTS reserve_call;
