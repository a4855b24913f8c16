-- Idempotency keys: claims that take over only what the same request has left, which may be
-- an unknown outcome, and the calls of operators.
--
-- A claimed record has no response. Its status is 1 if the claim was taken over, and
-- otherwise 0, as that of every claim of older programs.

-- readable_record reports whether this version can have written a record.
CREATE FUNCTION readable_record_v1(r records) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT (r.state BETWEEN 1 AND 5 AND (r.state = 2) = (r.payload IS NOT NULL)
		AND (r.state <> 1 OR r.status IN (0, 1))
		AND octet_length(r.token) = 16 AND octet_length(r.fingerprint) = 32
		AND r.generation > 0
		AND isfinite(r.lease_ends) AND isfinite(r.expires)) IS TRUE
$$;

-- corrupt_record fails. The program interprets SQLSTATE UC001.
CREATE FUNCTION corrupt_record_v1() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the record of an idempotency key cannot be read' USING ERRCODE = 'UC001';
END $$;

-- claim takes a key that is free, or returns the existing record. Durations are in
-- microseconds. A token that has released the key gets no row.
CREATE FUNCTION claim_v2(
	p_owner bytea, p_name bytea, p_token bytea, p_fingerprint bytea, p_lease bigint, p_ttl bigint, p_take_unknown boolean)
RETURNS TABLE (
	state smallint, won boolean, taken_over boolean, generation bigint, fingerprint bytea, lease bigint,
	status integer, payload bytea)
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
		IF r.owner IS NULL THEN
			INSERT INTO records VALUES (ours.*) ON CONFLICT DO NOTHING;
		ELSE
			IF NOT readable_record_v1(r) THEN
				PERFORM corrupt_record_v1();
			END IF;
			mine := r.token = p_token AND r.expires > now;
			IF mine AND r.state = 4 THEN
				RETURN;
			ELSIF mine AND r.state = 1 THEN -- a repeated call
				ours.generation := r.generation;
				ours.fingerprint := r.fingerprint;
				ours.status := r.status;
				ours.expires := greatest(ours.expires, r.expires);
			ELSE
				ours.generation := greatest(ours.generation, r.generation + 1);
				IF r.expires > now AND r.state <> 4 THEN
					IF mine OR r.fingerprint <> p_fingerprint
						OR NOT (r.state = 1 AND r.lease_ends <= now OR r.state = 5 AND p_take_unknown)
					THEN
						RETURN QUERY SELECT r.state, false, false, r.generation, r.fingerprint,
							CASE r.state WHEN 1 THEN greatest((extract(epoch FROM r.lease_ends - now) * 1000000)::bigint, 0) ELSE 0 END,
							CASE r.state WHEN 1 THEN 0 ELSE r.status END, r.payload;
						RETURN;
					END IF;
					ours.status := 1;
				END IF;
			END IF;
			-- This changes the record only if it is still the one that was read.
			UPDATE records SET token = ours.token, fingerprint = ours.fingerprint, state = 1, status = ours.status,
				generation = ours.generation, lease_ends = ours.lease_ends, expires = ours.expires, payload = NULL
			WHERE owner = p_owner AND name = p_name AND token = r.token AND state = r.state
				AND generation = r.generation AND lease_ends = r.lease_ends AND expires = r.expires;
		END IF;
		-- Otherwise another call came first, and the loop decides again by its result.
		EXIT WHEN FOUND;
	END LOOP;
	RETURN QUERY SELECT 1::smallint, true, ours.status = 1, ours.generation, ours.fingerprint, p_lease, 0, NULL::bytea;
	-- Each claim removes more expired records, on average, than the one that it adds.
	IF random() < 1.0 / 16 THEN
		PERFORM remove_records_v1(64);
	END IF;
END $$;

-- find returns a record and changes nothing. Durations are in microseconds. There is no row
-- if the key is free.
CREATE FUNCTION find_v1(p_owner bytea, p_name bytea)
RETURNS TABLE (
	state smallint, generation bigint, fingerprint bytea, lease bigint, ttl bigint, status integer, payload bytea)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
	r   records;
	now timestamptz;
BEGIN
	SELECT * INTO r FROM records WHERE owner = p_owner AND name = p_name;
	IF r.owner IS NULL THEN
		RETURN;
	ELSIF NOT readable_record_v1(r) THEN
		PERFORM corrupt_record_v1();
	END IF;
	now := clock_timestamp();
	IF r.expires <= now OR r.state = 4 THEN
		RETURN;
	END IF;
	RETURN QUERY SELECT r.state, r.generation, r.fingerprint,
		CASE r.state WHEN 1 THEN greatest((extract(epoch FROM r.lease_ends - now) * 1000000)::bigint, 0) ELSE 0 END,
		(extract(epoch FROM r.expires - now) * 1000000)::bigint,
		CASE r.state WHEN 1 THEN 0 ELSE r.status END, r.payload;
END $$;

-- delete removes the record with a generation, or with generation 0 one that cannot be read.
-- It returns true if it has done so, false if the record has another generation or is a
-- claim whose lease has not ended, and null if the key is free.
CREATE FUNCTION delete_v1(p_owner bytea, p_name bytea, p_generation bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	r   records;
	now timestamptz;
BEGIN
	LOOP
		-- A transaction that finishes the record must not make a call wait that will be refused.
		SELECT * INTO r FROM records WHERE owner = p_owner AND name = p_name;
		IF r.owner IS NULL THEN
			RETURN NULL;
		END IF;
		now := clock_timestamp();
		IF NOT readable_record_v1(r) THEN
			IF p_generation <> 0 THEN
				PERFORM corrupt_record_v1();
			END IF;
		ELSIF r.expires <= now OR r.state = 4 THEN
			RETURN NULL;
		ELSIF r.generation <> p_generation OR r.state = 1 AND r.lease_ends > now THEN
			RETURN false;
		END IF;
		-- This deletes the record only if it is still the one that was read.
		DELETE FROM records d WHERE d.owner = p_owner AND d.name = p_name AND d IS NOT DISTINCT FROM r;
		IF FOUND THEN
			RETURN true;
		END IF;
	END LOOP;
END $$;

INSERT INTO versions (version, serves) VALUES (11, 1);
