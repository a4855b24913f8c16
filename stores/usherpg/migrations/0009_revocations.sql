-- Revocations of tokens, in the order in which programs follow them.

CREATE TABLE revocations (
	kind          smallint NOT NULL, -- a RevocationKind of package jwtauth
	issuer        text   COLLATE "C" NOT NULL,
	value         text   COLLATE "C" NOT NULL,
	issued_before bigint, -- microseconds since 1970; for a subject
	until         bigint NOT NULL,
	position      bigint NOT NULL UNIQUE,
	PRIMARY KEY (kind, issuer, value)
);

CREATE INDEX revocations_until ON revocations (until);

-- The one row of this table is locked by each call that adds a revocation, until it
-- commits: positions are in the order of the commits, so who has seen one has seen all
-- earlier ones.
CREATE TABLE revocation_log (
	single boolean PRIMARY KEY CHECK (single),
	name   text    NOT NULL, -- begins all positions, so that those of another list are not mistaken for them
	last   bigint  NOT NULL
);

INSERT INTO revocation_log VALUES (true, replace(gen_random_uuid()::text, '-', ''), 0);

CREATE FUNCTION check_revocation_v1(r revocations) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF (r.kind BETWEEN 0 AND 2 AND (r.kind = 2) = (r.issued_before IS NOT NULL) AND r.position > 0 AND r.issuer <> '' AND r.value <> '') IS NOT TRUE THEN
		RAISE EXCEPTION 'a revocation cannot be read' USING ERRCODE = 'UC001';
	END IF;
END $$;

-- revocation_json returns a revocation as programs read it.
CREATE FUNCTION revocation_json_v1(r revocations) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM check_revocation_v1(r);
	RETURN to_jsonb(r);
END $$;

-- revoke adds a revocation, or extends it.
CREATE FUNCTION revoke_v1(p_kind smallint, p_issuer text, p_value text, p_issued_before bigint, p_until bigint) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	r    revocations;
	at   bigint;
	old  bigint := extract(epoch FROM clock_timestamp()) * 1000000 - 60000000; -- a minute for clocks that differ
BEGIN
	-- Otherwise a crash could take back a position that was followed, and give it to another.
	IF current_setting('synchronous_commit') = 'off' THEN
		PERFORM set_config('synchronous_commit', 'local', true);
	END IF;
	UPDATE revocation_log SET last = last + 1 RETURNING last INTO at;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'the log of revocations is empty' USING ERRCODE = 'UC001';
	END IF;
	SELECT * INTO r FROM revocations WHERE kind = p_kind AND issuer = p_issuer AND value = p_value;
	IF NOT FOUND THEN
		INSERT INTO revocations VALUES (p_kind, p_issuer, p_value, p_issued_before, p_until, at);
	ELSE
		PERFORM check_revocation_v1(r);
		IF p_until > r.until OR p_issued_before > r.issued_before THEN
			UPDATE revocations SET until = greatest(until, p_until), issued_before = greatest(issued_before, p_issued_before), position = at
			WHERE kind = p_kind AND issuer = p_issuer AND value = p_value;
		END IF;
	END IF;
	DELETE FROM revocations WHERE (kind, issuer, value) IN (
		SELECT kind, issuer, value FROM revocations WHERE until < old ORDER BY until LIMIT 2);
END $$;

-- revoked reports whether a token is revoked. What the token does not have is null.
CREATE FUNCTION revoked_v1(p_issuer text, p_id text, p_session text, p_subject text, issued_at bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
	r     revocations;
	found boolean := false;
BEGIN
	FOR r IN
		SELECT * FROM revocations WHERE kind = 0 AND issuer = p_issuer AND value = p_id
		UNION ALL SELECT * FROM revocations WHERE kind = 1 AND issuer = p_issuer AND value = p_session
		UNION ALL SELECT * FROM revocations WHERE kind = 2 AND issuer = p_issuer AND value = p_subject
	LOOP
		PERFORM check_revocation_v1(r);
		found := found OR r.kind < 2 OR issued_at IS NULL OR issued_at < r.issued_before;
	END LOOP;
	RETURN found;
END $$;

-- revocations_after returns the revocations after a position, in their order, of which
-- there are at most 1000, and the last position. Origin is another one whenever
-- positions may have been lost: when a replica was promoted, which may lack the last
-- ones, or a backup was restored.
CREATE FUNCTION revocations_after_v1(after bigint, OUT origin text, OUT last bigint, OUT page jsonb)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
	SELECT l.name || '.' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), l.last INTO STRICT origin, last FROM revocation_log l;
	SELECT coalesce(jsonb_agg(revocation_json_v1(r) ORDER BY r.position), '[]') INTO page FROM (
		SELECT * FROM revocations v WHERE v.position > after ORDER BY v.position LIMIT 1000) r;
END $$;

INSERT INTO versions (version, serves) VALUES (9, 1);
