-- API keys: indexes of the lines, of derived keys, and of the keys that have not ended. They
-- are apart from the migration before, whose lock would keep programs from reading keys until
-- the indexes are built.

CREATE INDEX keys_line    ON keys (line) WHERE line <> '';
CREATE INDEX keys_derived ON keys (derived_from) WHERE derived_from <> '';
CREATE INDEX keys_open    ON keys (owner, (coalesce(expires_at, 9223372036854775807))) WHERE revoked_at IS NULL;

INSERT INTO versions (version, serves) VALUES (15, 1);
