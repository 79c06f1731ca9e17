-- The health of an API: failures in a row, whether it is unavailable, and when it is probed next. The rules: docs/collection.md.

ALTER TABLE api_budget
    ADD COLUMN IF NOT EXISTS failed_calls       integer NOT NULL DEFAULT 0,      -- in a row, no usable answer between them
    ADD COLUMN IF NOT EXISTS failed_regions     text[]  NOT NULL DEFAULT '{}',   -- two of the regions they were for
    ADD COLUMN IF NOT EXISTS refused_since      timestamptz,                     -- refusals of unknown shape, no answer between them
    ADD COLUMN IF NOT EXISTS unavailable_since  timestamptz,                     -- the API gives no usable answer
    ADD COLUMN IF NOT EXISTS unavailable_reason text,
    ADD COLUMN IF NOT EXISTS unavailable_for    varchar(64),                     -- digest of the credentials and the address
    ADD COLUMN IF NOT EXISTS next_probe_at      timestamptz,
    ADD COLUMN IF NOT EXISTS probes             integer NOT NULL DEFAULT 0;      -- since then; the interval grows with them

-- Attempts at the region in which this search failed while others were answered; it is skipped after MOHE_MAX_ATTEMPTS.
ALTER TABLE search_query ADD COLUMN IF NOT EXISTS failed_rounds integer NOT NULL DEFAULT 0;

-- As reserve_calls of 008, which stays for older versions, and besides:
--   UNAVAILABLE  the API gives no usable answer since `since`; one call, a probe, may be made at `until`, or now if `p_probe_now`
-- `failing`: failures were noted, so an answer is to be noted as well.
CREATE OR REPLACE FUNCTION reserve_api_calls(
    p_api text, p_account text, p_credentials text, p_service text, p_calls_per_second double precision,
    p_daily_quota integer, p_monthly_quota integer, p_probe_seconds double precision,
    p_first_interval double precision, p_last_interval double precision, p_probe_now boolean, p_calls integer,
    OUT verdict text, OUT wait_seconds double precision, OUT until timestamptz, OUT why text, OUT probe boolean,
    OUT calls integer, OUT gap double precision, OUT day date, OUT since timestamptz, OUT failing boolean
) LANGUAGE plpgsql AS $$
DECLARE
    budget  api_budget;
    moment  timestamptz;
    used    integer;
    is_down boolean;
BEGIN
    probe := false;
    SELECT * INTO budget FROM api_budget WHERE api = p_api AND account = p_account FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO api_budget (api, account) VALUES (p_api, p_account) ON CONFLICT DO NOTHING;
        SELECT * INTO budget FROM api_budget WHERE api = p_api AND account = p_account FOR UPDATE;
    END IF;
    moment := budget_clock();  -- after the lock: whoever waited for it must not get a slot in the past
    day := budget_day(moment);
    calls := p_calls;
    failing := budget.failed_calls > 0 OR budget.refused_since IS NOT NULL;
    is_down := budget.unavailable_since IS NOT NULL AND budget.unavailable_for = p_service;
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
         WHERE u.api = p_api AND u.account = p_account AND u.day >= date_trunc('month', reserve_api_calls.day)::date;
        calls := least(calls, p_monthly_quota - used);
        IF calls <= 0 THEN
            verdict := 'EXHAUSTED'; until := budget_midnight((date_trunc('month', day) + interval '1 month')::date);
            why := format('the month''s %s calls are used', p_monthly_quota);
            RETURN;
        END IF;
    END IF;
    -- Whoever reserves has locked the budget; what others change meanwhile only gives calls back.
    SELECT u.reserved - u.refused_rate - u.refused_quota INTO used FROM api_usage u
     WHERE u.api = p_api AND u.account = p_account AND u.day = reserve_api_calls.day;
    calls := least(calls, p_daily_quota - coalesce(used, 0));
    IF calls <= 0 THEN
        verdict := 'EXHAUSTED'; until := budget_midnight(day + 1);
        why := format('the day''s %s calls are used', p_daily_quota);
        RETURN;
    END IF;
    IF is_down THEN
        -- A moment that is further away than the longest interval was written by a wrong clock.
        IF budget.probing_since > moment - make_interval(secs => p_probe_seconds)
           OR NOT p_probe_now AND budget.next_probe_at > moment
              AND budget.next_probe_at <= moment + make_interval(secs => p_last_interval) THEN
            verdict := 'UNAVAILABLE'; until := budget.next_probe_at; why := budget.unavailable_reason;
            since := budget.unavailable_since;
            RETURN;
        END IF;
        probe := true;
        calls := 1;
        IF NOT p_probe_now OR budget.next_probe_at <= moment THEN
            UPDATE api_budget b
               SET next_probe_at = moment + make_interval(
                       secs => least(p_last_interval, p_first_interval * power(2, least(b.probes + 1, 30)))),
                   probes = b.probes + 1
             WHERE b.api = p_api AND b.account = p_account;
        END IF;
    ELSIF budget.exhausted_until IS NOT NULL OR budget.proven IS DISTINCT FROM p_credentials THEN
        IF budget.probing_since > moment - make_interval(secs => p_probe_seconds) THEN
            verdict := 'WAIT'; wait_seconds := 0.1;
            RETURN;
        END IF;
        probe := true;
        calls := 1;
    END IF;
    INSERT INTO api_usage AS usage (api, account, day, reserved) VALUES (p_api, p_account, reserve_api_calls.day, calls)
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

-- A call got no usable answer. The API is unavailable after `p_calls` such calls in a row, of two regions at least, or at once if
-- `p_at_fault`. Returns `since` while it is.
CREATE OR REPLACE FUNCTION note_failed_call(
    p_api text, p_account text, p_service text, p_region text, p_reason text, p_calls integer, p_at_fault boolean,
    p_first_interval double precision, p_was_probe boolean,
    OUT since timestamptz, OUT reason text, OUT until timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    budget api_budget;
BEGIN
    UPDATE api_budget b
       SET failed_calls = least(b.failed_calls + 1, 1000000),
           failed_regions = CASE WHEN p_region = ANY(b.failed_regions) OR cardinality(b.failed_regions) > 1
                                 THEN b.failed_regions ELSE b.failed_regions || p_region END,
           probing_since = CASE WHEN p_was_probe THEN NULL ELSE b.probing_since END
     WHERE b.api = p_api AND b.account = p_account
    RETURNING * INTO budget;
    IF budget.unavailable_since IS NOT NULL AND budget.unavailable_for = p_service THEN
        UPDATE api_budget b SET unavailable_reason = p_reason WHERE b.api = p_api AND b.account = p_account;
        since := budget.unavailable_since; reason := p_reason; until := budget.next_probe_at;
    ELSIF p_at_fault OR budget.failed_calls >= p_calls AND cardinality(budget.failed_regions) > 1 THEN
        since := budget_clock(); reason := p_reason; until := since + make_interval(secs => p_first_interval);
        UPDATE api_budget b
           SET unavailable_since = since, unavailable_reason = p_reason, unavailable_for = p_service,
               next_probe_at = until, probes = 0
         WHERE b.api = p_api AND b.account = p_account;
    END IF;
END $$;

-- The server refused a call for its rate; everybody slows down. Refusals of a shape that is not known may mean the quota: they do
-- when there was nothing else for `p_seconds`. Returns `until` when the quota is to be taken as used up.
CREATE OR REPLACE FUNCTION note_rate_refusal(
    p_api text, p_account text, p_is_unknown boolean, p_seconds double precision, p_closed_seconds double precision, p_why text,
    OUT until timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    refused timestamptz;
BEGIN
    PERFORM slow_down(p_api, p_account);
    IF NOT p_is_unknown THEN
        RETURN;
    END IF;
    UPDATE api_budget b SET refused_since = coalesce(b.refused_since, budget_clock())
     WHERE b.api = p_api AND b.account = p_account
    RETURNING b.refused_since INTO refused;
    IF refused <= budget_clock() - make_interval(secs => p_seconds) THEN
        until := budget_clock() + make_interval(secs => p_closed_seconds);
        UPDATE api_budget b SET exhausted_until = note_rate_refusal.until, exhausted_why = p_why, probing_since = NULL
         WHERE b.api = p_api AND b.account = p_account;
    END IF;
END $$;
