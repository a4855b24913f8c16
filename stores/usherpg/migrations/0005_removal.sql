-- Rate limits: the removal of what no longer counts.

-- The place where the search for expired limits continues: one row, which is locked by the
-- call that searches.
CREATE UNLOGGED TABLE progress (
	single boolean PRIMARY KEY CHECK (single),
	policy text    COLLATE "C" NOT NULL,
	key    bytea   NOT NULL
);

-- tidy removes, in one of 64 calls, more than 64 calls leave behind on average. It never
-- waits for other transactions. A test that sets the clock must not remove data of others.
CREATE FUNCTION tidy_v1(clock bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF clock IS NULL AND random() < 1.0 / 64 THEN
		PERFORM remove_calls_v1(256, NULL);
		PERFORM remove_limits_v1(256, NULL);
	END IF;
END $$;

-- remove_calls removes calls that can no longer be repeated.
CREATE FUNCTION remove_calls_v1(most integer, clock bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	old bigint := microseconds_v1(clock) - 5000000; -- a volatile function would keep from using the index
	n   bigint;
BEGIN
	DELETE FROM calls c USING (
		SELECT node, seq FROM calls WHERE called_at < old ORDER BY called_at LIMIT most FOR UPDATE SKIP LOCKED) gone
	WHERE c.node = gone.node AND c.seq = gone.seq;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END $$;

-- remove_limits looks at the rows that follow those that it looked at last, and removes
-- those that expired at least a minute ago, with their places. After the last row it begins
-- again. Without the minute, a bucket that is often full would often be removed and made
-- again.
CREATE FUNCTION remove_limits_v1(most integer, clock bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	at      progress;
	last    record;
	expired bigint := microseconds_v1(clock) - 60000000;
	n       bigint;
BEGIN
	SELECT * INTO at FROM progress FOR UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		-- Another call is searching, or nothing was searched since a crash.
		INSERT INTO progress SELECT true, '', '' WHERE NOT EXISTS (SELECT 1 FROM progress) ON CONFLICT DO NOTHING;
		RETURN 0;
	END IF;
	SELECT policy, key INTO last FROM (
		SELECT policy, key FROM limits WHERE (policy, key) > (at.policy, at.key) ORDER BY policy, key LIMIT most) batch
	ORDER BY policy DESC, key DESC LIMIT 1;
	IF NOT FOUND THEN
		UPDATE progress SET policy = '', key = '';
		RETURN 0;
	END IF;
	WITH dead AS (
		SELECT policy, key FROM limits
		WHERE (policy, key) > (at.policy, at.key) AND (policy, key) <= (last.policy, last.key)
			AND expires BETWEEN 0 AND expired -- a negative one cannot be read
		FOR UPDATE SKIP LOCKED
	), free AS (
		DELETE FROM places p USING dead WHERE p.policy = dead.policy AND p.key = dead.key
	), gone AS (
		DELETE FROM limits l USING dead WHERE l.policy = dead.policy AND l.key = dead.key RETURNING 1
	)
	SELECT count(*) INTO n FROM gone;
	UPDATE progress SET policy = last.policy, key = last.key;
	RETURN n;
END $$;

INSERT INTO versions (version, serves) VALUES (5, 1);
