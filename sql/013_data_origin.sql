-- Where the data comes from: the simulator, or the real APIs. Data of the one is never mixed with that of the other.

CREATE TABLE IF NOT EXISTS data_origin (
    part       varchar(20) PRIMARY KEY,                  -- 'regions': the list; 'places': places and ledger
    origin     varchar(20) NOT NULL,                     -- 'none' after a reset
    noted_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT data_origin_part_known CHECK (part IN ('regions', 'places')),
    CONSTRAINT data_origin_known CHECK (origin IN ('none', 'simulator', 'api'))
);

-- Data from before this table: the simulator's if its account was in use on the day of the oldest answer and since, the real
-- APIs' otherwise. The accounts are the digests of the simulator's two client ids, as in api_budget.account.
INSERT INTO data_origin (part, origin)
SELECT 'places',
       CASE WHEN EXISTS (
                SELECT FROM api_budget b
                  JOIN api_usage u USING (api, account)
                 WHERE b.account IN ('c47f4dd011b0485950539cdbea8cd95c', '1eaf2cbfd77d76979a19365b6efcae6b')
                   AND b.updated_at >= oldest.at AND u.day = budget_day(oldest.at)
                   AND u.reserved > u.refused_rate + u.refused_quota) THEN 'simulator'
            WHEN EXISTS (SELECT FROM places) OR EXISTS (SELECT FROM search_query) THEN 'api'
            ELSE 'none' END
  FROM (SELECT coalesce((SELECT min(answered_at) FROM search_query), (SELECT min(first_seen_at) FROM places)) AS at) oldest
ON CONFLICT (part) DO NOTHING;
