-- State of an API shared by all processes and machines: its rate, its day's calls, and whether it may be called.

-- The clock of the budget. One function, so that a test can move midnight without waiting for it.
CREATE OR REPLACE FUNCTION budget_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT clock_timestamp() $$;

-- An account is a client id, as a digest: limits are counted per client id, so each has its own row.
CREATE TABLE IF NOT EXISTS api_budget (
    api              varchar(50)  NOT NULL,              -- 'naver-classic', 'naver-hub'
    account          varchar(64)  NOT NULL,
    next_slot_at     timestamptz  NOT NULL DEFAULT '-infinity',
    pace             double precision NOT NULL DEFAULT 1,  -- share of the configured rate in use; falls after refusals
    paced_at         timestamptz  NOT NULL DEFAULT '-infinity',
    paced_calls      integer      NOT NULL DEFAULT 0,    -- the day's calls, and of them the refused, at the last cut
    paced_refused    integer      NOT NULL DEFAULT 0,
    proven           varchar(64),                        -- digest of the credentials that last got an answer
    probing_since    timestamptz,                        -- a call is under way that shows whether the API answers (again)
    exhausted_until  timestamptz,                        -- the server answered that the quota is used up
    exhausted_why    text,
    blocked          varchar(64),                        -- digest of the credentials the server refused
    blocked_at       timestamptz,
    blocked_why      text,
    updated_at       timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (api, account),
    CONSTRAINT api_budget_pace_sane CHECK (pace > 0 AND pace <= 1),
    CONSTRAINT api_budget_block_has_reason CHECK ((blocked IS NULL) = (blocked_why IS NULL))
);

CREATE TABLE IF NOT EXISTS api_usage (
    api            varchar(50) NOT NULL,
    account        varchar(64) NOT NULL,
    day            date        NOT NULL,                 -- KST
    reserved       integer     NOT NULL DEFAULT 0 CHECK (reserved >= 0),       -- calls sent or about to be
    refused_rate   integer     NOT NULL DEFAULT 0 CHECK (refused_rate >= 0),   -- of them, answered 429 for the rate
    refused_quota  integer     NOT NULL DEFAULT 0 CHECK (refused_quota >= 0),  -- of them, answered 429 for the quota
    PRIMARY KEY (api, account, day),
    FOREIGN KEY (api, account) REFERENCES api_budget (api, account)
);

CREATE OR REPLACE FUNCTION budget_day(moment timestamptz) RETURNS date LANGUAGE sql IMMUTABLE AS $$
    SELECT (moment AT TIME ZONE 'Asia/Seoul')::date
$$;
CREATE OR REPLACE FUNCTION budget_midnight(day date) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT day::timestamp AT TIME ZONE 'Asia/Seoul'
$$;

-- A pace that was cut recovers by 0.02 % of itself a second, and faster the longer nothing is refused: half a per cent is
-- back in 25 s, all of it after a bad hour in two. So a configured rate above the server's limit is probed rarely.
CREATE OR REPLACE FUNCTION current_pace(budget api_budget, moment timestamptz) RETURNS double precision
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN budget.pace = 1 THEN 1
                ELSE least(1, budget.pace * (1 + 0.0002 * since + 1e-7 * since * since)) END
      FROM (SELECT extract(epoch FROM moment - budget.paced_at)::double precision AS since) AS elapsed
$$;

-- The server refused a call for its rate: all processes slow down. A few refusals among many calls are late packets and cost
-- half a per cent; more than one call in five refused since the last look means that the configured rate is too high, and
-- costs fifteen. Refusals at the same moment count once: the calls that caused them were sent before the first refusal was known.
CREATE OR REPLACE FUNCTION slow_down(p_api text, p_account text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    budget  api_budget;
    moment  timestamptz;
    calls   integer;
    refused integer;
    enough  boolean;
BEGIN
    SELECT * INTO budget FROM api_budget WHERE api = p_api AND account = p_account FOR UPDATE;
    moment := budget_clock();
    UPDATE api_usage AS usage SET refused_rate = usage.refused_rate + 1
     WHERE api = p_api AND account = p_account AND day = budget_day(moment)
    RETURNING usage.reserved, usage.refused_rate INTO calls, refused;
    IF budget.paced_at > moment - interval '0.5 seconds' THEN
        RETURN;
    END IF;
    -- Judged over five calls at least, and over one day: the counts restart at midnight.
    enough := calls - budget.paced_calls NOT BETWEEN 0 AND 4;
    UPDATE api_budget
       SET paced_at = moment,
           paced_calls = CASE WHEN enough THEN calls ELSE budget.paced_calls END,
           paced_refused = CASE WHEN enough THEN refused ELSE budget.paced_refused END,
           pace = greatest(0.02, current_pace(budget, moment) * CASE
               WHEN enough AND (refused - budget.paced_refused) * 5 > calls - budget.paced_calls
                    AND calls > budget.paced_calls THEN 0.85
               ELSE 0.995 END)
     WHERE api = p_api AND account = p_account;
END $$;

CREATE OR REPLACE TRIGGER api_budget_updated_at
    BEFORE UPDATE ON api_budget FOR EACH ROW EXECUTE FUNCTION set_updated_at();
