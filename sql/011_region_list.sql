-- Successions known from the public register, and region lists that were not believed.

-- NULL: inferred from the names of the dongs. Otherwise where the succession is published.
ALTER TABLE region_succession ADD COLUMN IF NOT EXISTS source varchar(200);

-- The last complete download that was not taken over, one row per region type. It is believed if it comes again on a later
-- Korean day, unless it needs a person's decision.
CREATE TABLE IF NOT EXISTS unconfirmed_region_list (
    region_type    varchar(50)  PRIMARY KEY,
    fingerprint    varchar(64)  NOT NULL,                 -- of all its regions and dongs
    leaves         integer      NOT NULL CHECK (leaves >= 0),
    missing        text[]       NOT NULL,                 -- codes of known leaves that it lacks and nothing in it succeeds
    reason         text         NOT NULL,                 -- the numbers, for people
    needs_decision boolean      NOT NULL,                 -- too much is missing to be believed on any day unless a person accepts it
    first_seen_on  date         NOT NULL,                 -- Korean days
    last_seen_on   date         NOT NULL,
    settled_at     timestamptz,                           -- when a list was taken over after it
    CONSTRAINT unconfirmed_region_list_days CHECK (first_seen_on <= last_seen_on)
);
