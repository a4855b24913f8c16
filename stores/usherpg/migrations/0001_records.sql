-- The records of idempotency keys.
--
-- A migration runs in one transaction, with the search_path set to the schema of usher
-- alone: no name here has a schema, and each function that programs call keeps the path.
-- Such a function has a version in its name. A migration that changes what a function does
-- adds its next version, and leaves the previous one for older programs until they are
-- replaced.

-- The migrations that were applied. A program of version v can use this schema while serves
-- <= v for every row. A migration that drops or breaks what older programs use raises
-- serves.
CREATE TABLE versions (
	version    integer     PRIMARY KEY,
	serves     integer     NOT NULL,
	applied_at timestamptz NOT NULL DEFAULT now()
);

-- Exactly-once effects need records that survive a crash, so this table is logged.
CREATE TABLE records (
	owner       bytea       NOT NULL, -- 32 bytes
	name        bytea       NOT NULL, -- 32 bytes
	token       bytea       NOT NULL, -- 16 bytes, of the claim
	fingerprint bytea       NOT NULL, -- 32 bytes, of the claim
	state       smallint    NOT NULL, -- a State of package idempotency
	status      integer     NOT NULL DEFAULT 0,
	generation  bigint      NOT NULL,
	lease_ends  timestamptz NOT NULL,
	expires     timestamptz NOT NULL,
	payload     bytea,                -- of a response that is done
	PRIMARY KEY (owner, name)
);

CREATE INDEX records_expires ON records (expires);

-- check_record fails for a record that this version cannot have written. The program
-- interprets SQLSTATE UC001.
CREATE FUNCTION check_record_v1(r records) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF (r.state BETWEEN 1 AND 5 AND (r.state = 2) = (r.payload IS NOT NULL)
		AND octet_length(r.token) = 16 AND octet_length(r.fingerprint) = 32
		AND r.generation > 0
		AND isfinite(r.lease_ends) AND isfinite(r.expires)) IS NOT TRUE
	THEN
		RAISE EXCEPTION 'the record of an idempotency key cannot be read' USING ERRCODE = 'UC001';
	END IF;
END $$;

-- claim takes a key that is free, or returns the existing record. Durations are in
-- microseconds. A token that has released the key gets no row.
CREATE FUNCTION claim_v1(
	p_owner bytea, p_name bytea, p_token bytea, p_fingerprint bytea, p_lease bigint, p_ttl bigint)
RETURNS TABLE (
	state smallint, won boolean, generation bigint, fingerprint bytea, lease bigint, status integer, payload bytea)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
	r      records;
	ours   records; -- the record as this claim leaves it
	mine   boolean; -- this token has claimed the key before
	now    timestamptz;
BEGIN
	LOOP
		-- Most claims of a key with a record are repetitions, which change nothing. So this
		-- read locks nothing: it neither waits for a transaction that finishes the record
		-- nor makes one wait.
		SELECT * INTO r FROM records WHERE owner = p_owner AND name = p_name;
		now := clock_timestamp();
		ours.owner := p_owner; ours.name := p_name; ours.token := p_token; ours.fingerprint := p_fingerprint;
		ours.state := 1; ours.status := 0; ours.payload := NULL;
		ours.generation := extract(epoch FROM now) * 1000000;
		ours.lease_ends := now + p_lease * interval '1 microsecond';
		ours.expires := now + p_ttl * interval '1 microsecond';
		mine := false;
		IF r.owner IS NULL THEN
			INSERT INTO records VALUES (ours.*) ON CONFLICT DO NOTHING;
		ELSE
			PERFORM check_record_v1(r);
			mine := r.token = p_token AND r.expires > now;
			IF mine AND r.state = 4 THEN
				RETURN;
			ELSIF r.expires > now AND r.state <> 4 AND (r.state <> 1 OR r.lease_ends > now AND NOT mine) THEN
				RETURN QUERY SELECT r.state, false, r.generation, r.fingerprint,
					CASE r.state WHEN 1 THEN (extract(epoch FROM r.lease_ends - now) * 1000000)::bigint ELSE 0 END,
					r.status, r.payload;
				RETURN;
			ELSIF mine AND r.state <> 1 THEN
				RETURN QUERY SELECT r.state, false, r.generation, r.fingerprint, 0::bigint, r.status, r.payload;
				RETURN;
			ELSIF mine THEN -- a repeated call
				ours.generation := r.generation;
				ours.fingerprint := r.fingerprint;
				ours.expires := greatest(ours.expires, r.expires);
			ELSE
				ours.generation := greatest(ours.generation, r.generation + 1);
			END IF;
			-- This changes the record only if it is still the one that was read.
			UPDATE records SET token = ours.token, fingerprint = ours.fingerprint, state = 1, status = 0,
				generation = ours.generation, lease_ends = ours.lease_ends, expires = ours.expires, payload = NULL
			WHERE owner = p_owner AND name = p_name AND token = r.token AND state = r.state
				AND generation = r.generation AND lease_ends = r.lease_ends AND expires = r.expires;
		END IF;
		-- Otherwise another call came first, and the loop decides again by its result.
		EXIT WHEN FOUND;
	END LOOP;
	RETURN QUERY SELECT 1::smallint, true, ours.generation, ours.fingerprint, p_lease, 0, NULL::bytea;
	-- Each claim removes more expired records, on average, than the one that it adds.
	IF random() < 1.0 / 16 THEN
		PERFORM remove_records_v1(64);
	END IF;
END $$;

-- remove_records removes expired records. It never waits for other transactions.
CREATE FUNCTION remove_records_v1(most integer) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	now timestamptz := clock_timestamp(); -- a volatile function would keep from using the index
	n   bigint;
BEGIN
	DELETE FROM records r USING (
		SELECT owner, name FROM records WHERE expires <= now ORDER BY expires LIMIT most FOR UPDATE SKIP LOCKED) gone
	WHERE r.owner = gone.owner AND r.name = gone.name;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END $$;

-- renew starts the leases of claims again. It returns the positions of the lost ones.
CREATE FUNCTION renew_claims_v1(owners bytea[], names bytea[], tokens bytea[], p_lease bigint) RETURNS SETOF integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	lease   interval := p_lease * interval '1 microsecond';
	renewed integer[];
	claim   record;
	stored  records;
BEGIN
	-- A transaction that finishes one claim must not delay the leases of all others, so
	-- locked records are skipped here.
	WITH free AS (
		SELECT c.i, r.owner, r.name
		FROM unnest(owners, names, tokens) WITH ORDINALITY AS c (owner, name, token, i)
		JOIN records r ON r.owner = c.owner AND r.name = c.name AND r.token = c.token
		WHERE r.state = 1 AND r.expires > clock_timestamp()
		FOR UPDATE OF r SKIP LOCKED
	), done AS (
		UPDATE records r SET lease_ends = clock_timestamp() + lease,
			expires = greatest(r.expires, clock_timestamp() + lease)
		FROM free WHERE r.owner = free.owner AND r.name = free.name
	)
	SELECT coalesce(array_agg(i), '{}') INTO renewed FROM free;

	FOR claim IN
		SELECT * FROM unnest(owners, names, tokens) WITH ORDINALITY AS c (owner, name, token, i)
		WHERE i <> ALL (renewed) ORDER BY owner, name
	LOOP
		SELECT * INTO stored FROM records WHERE owner = claim.owner AND name = claim.name;
		IF (stored.token = claim.token AND stored.state = 1 AND stored.expires > clock_timestamp()) IS NOT TRUE THEN
			RETURN NEXT claim.i;
		ELSIF stored.lease_ends <= clock_timestamp() THEN
			-- Another claim may have locked the record to take over the key.
			UPDATE records SET lease_ends = clock_timestamp() + lease,
				expires = greatest(expires, clock_timestamp() + lease)
			WHERE owner = claim.owner AND name = claim.name AND token = claim.token AND state = 1 AND expires > clock_timestamp();
			IF NOT FOUND THEN
				RETURN NEXT claim.i;
			END IF;
		END IF;
		-- Otherwise a call of the owner itself has locked the record. Nobody else can take
		-- the key while the lease lasts, or while the record is locked.
	END LOOP;
END $$;

-- finish ends a claim, alone or in the transaction of a handler. It returns the state of
-- the record, or null if the claim is lost.
CREATE FUNCTION finish_v1(
	p_owner bytea, p_name bytea, p_token bytea, p_state smallint, p_status integer, p_payload bytea, p_ttl bigint)
RETURNS smallint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	r records;
BEGIN
	LOOP
		UPDATE records SET state = p_state, status = p_status, payload = p_payload,
			expires = clock_timestamp() + p_ttl * interval '1 microsecond'
		WHERE owner = p_owner AND name = p_name AND token = p_token AND state = 1 AND expires > clock_timestamp();
		IF FOUND THEN
			RETURN p_state;
		END IF;
		SELECT * INTO r FROM records WHERE owner = p_owner AND name = p_name;
		IF r.owner IS NULL THEN
			RETURN NULL;
		END IF;
		PERFORM check_record_v1(r);
		IF r.token <> p_token OR r.expires <= clock_timestamp() THEN
			RETURN NULL;
		ELSIF r.state <> 1 THEN
			RETURN r.state;
		END IF;
	END LOOP;
END $$;

INSERT INTO versions (version, serves) VALUES (1, 1);
