-- Rate limits: the calls of a store.

-- The results of recent calls, for those that are repeated.
CREATE UNLOGGED TABLE calls (
	node      bigint,
	seq       bigint,
	called_at bigint  NOT NULL,
	adjusts   boolean NOT NULL,
	admitted  boolean,
	violated  boolean[],
	remaining bigint[],
	resets    bigint[],
	waits     bigint[],
	moved     bigint[],
	PRIMARY KEY (node, seq)
) WITH (autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0);

CREATE INDEX calls_called_at ON calls (called_at);

-- microseconds returns the time of the server, or the time that a test has set.
CREATE FUNCTION microseconds_v1(test bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
	SELECT coalesce(test, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
$$;

-- take decides one request. Each array has one element for each charge, in the order of the
-- policies. All arguments and results are in microseconds; clock is null except in tests. A
-- wait of -1 never ends.
CREATE FUNCTION take_v1(
	p_node bigint, p_seq bigint, clock bigint,
	policies text[], keys bytea[],
	algorithms smallint[], quotas bigint[], bursts bigint[], periods bigint[], zones text[], -- of the limits
	costs bigint[], minima bigint[], shadows boolean[], ends bigint[], next_ends bigint[], leases bigint[],
	OUT admitted boolean, OUT called_at bigint,
	OUT violated boolean[], OUT remaining bigint[], OUT resets bigint[], OUT waits bigint[])
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
	n      integer  := cardinality(policies);
	rows   limits[] := lock_v1(policies, keys, quotas);
	-- The clock is read after all rows are locked, so that the time of a key does not go
	-- back.
	now    bigint   := microseconds_v1(clock);
	after  limits[] := rows; -- what the rows will be
	r      limits;
	u      usage;
	need   bigint;
	used   bigint;
	debt   numeric;
	excess bigint;
	j      integer;
BEGIN
	SELECT c.called_at, c.admitted, c.violated, c.remaining, c.resets, c.waits
	INTO called_at, admitted, violated, remaining, resets, waits
	FROM calls c WHERE c.node = p_node AND c.seq = p_seq AND NOT c.adjusts AND c.called_at >= now - 5000000;
	IF FOUND THEN
		RETURN;
	END IF;
	called_at := now;
	admitted := true;
	violated := '{}'; remaining := '{}'; resets := '{}'; waits := '{}';

	FOR i IN 1..n LOOP
		need := greatest(costs[i], minima[i]);
		violated[i] := false; remaining[i] := 0; resets[i] := 0; waits[i] := 0;
		IF quotas[i] = 0 THEN
			violated[i] := need > 0 AND algorithms[i] <> 5;
			waits[i] := -1;
		ELSIF algorithms[i] = 4 THEN
			used := places_of_v1(policies[i], keys[i], now);
			remaining[i] := greatest(quotas[i] - used, 0);
			violated[i] := need > 0 AND used + need > quotas[i];
			IF need > quotas[i] THEN waits[i] := -1; END IF;
		ELSE
			r := rows[i];
			u := ROW(algorithms[i], quotas[i], bursts[i], periods[i], zones[i], 0, NULL, NULL, NULL, NULL, NULL, NULL);
			r.usages := present_v1(policies[i], r.usages, u, now, ends[i], next_ends[i]);
			after[i] := r;
			u := r.usages[1];
			IF u.algorithm = 1 THEN
				debt := bucket_debt_v1(u, now);
				used := div(debt + u.period - 1, u.period);
				remaining[i] := u.burst - used;
				IF debt > 0 THEN
					resets[i] := div(debt - (used - 1) * u.period::numeric + u.quota - 1, u.quota);
				END IF;
				IF need > u.burst THEN
					violated[i] := true; waits[i] := -1;
				ELSIF need > 0 THEN
					debt := debt + (need - u.burst)::numeric * u.period; -- beyond what the bucket holds
					violated[i] := debt > 0;
					IF debt > 0 THEN waits[i] := div(debt + u.quota - 1, u.quota); END IF;
				END IF;
			ELSE
				remaining[i] := u.quota - u.used;
				violated[i] := need > 0 AND u.used + need > u.quota;
				IF u.algorithm = 3 THEN
					resets[i] := greatest(u.ends - now, 0);
					waits[i] := resets[i];
				ELSIF u.used > 0 THEN
					resets[i] := u.stamps[1] + u.period - now;
				END IF;
				IF violated[i] AND need > u.quota THEN
					waits[i] := -1;
				ELSIF violated[i] AND u.algorithm = 2 THEN
					-- The oldest charges expire first. Each has a cost of at least one.
					excess := u.used + need - u.quota;
					j := 1;
					WHILE excess > 0 AND j < cardinality(u.stamps) LOOP
						excess := excess - u.stamps[j + 1];
						waits[i] := u.stamps[j] + u.period - now;
						j := j + 2;
					END LOOP;
				END IF;
			END IF;
		END IF;
		IF NOT violated[i] THEN
			waits[i] := 0;
		ELSIF NOT shadows[i] THEN
			admitted := false;
		END IF;
	END LOOP;

	FOR i IN 1..n LOOP
		CONTINUE WHEN quotas[i] = 0;
		IF admitted AND NOT violated[i] THEN
			remaining[i] := greatest(remaining[i] - costs[i], 0);
		END IF;
		IF algorithms[i] = 4 THEN
			IF admitted AND NOT violated[i] AND costs[i] > 0 THEN
				INSERT INTO places VALUES (policies[i], keys[i], p_node, p_seq, costs[i], now + leases[i])
				ON CONFLICT (policy, key, node, seq)
				DO UPDATE SET taken = places.taken + excluded.taken; -- an ID of long ago
				UPDATE limits l SET expires = greatest(l.expires, now + leases[i])
				WHERE l.policy = policies[i] AND l.key = keys[i];
			END IF;
			CONTINUE;
		END IF;
		r := after[i];
		IF admitted AND NOT violated[i] THEN
			u := r.usages[1];
			IF costs[i] > 0 THEN
				IF u.algorithm = 1 THEN
					IF resets[i] = 0 THEN resets[i] := div(u.period + u.quota - 1, u.quota); END IF;
					u.full_at := now::numeric * u.quota + bucket_debt_v1(u, now) + costs[i]::numeric * u.period;
				ELSE
					IF u.algorithm = 2 THEN
						IF resets[i] = 0 THEN resets[i] := u.period; END IF;
						u.stamps := add_v1(u.stamps, now, costs[i]);
					END IF;
					u.used := u.used + costs[i];
				END IF;
				r.usages[1] := u;
			END IF;
			IF cardinality(r.usages) > 1 THEN
				r.usages := spread_v1(r.usages, now, now, costs[i]);
			END IF;
		END IF;
		PERFORM keep_v1(rows[i], r.usages, now);
	END LOOP;

	INSERT INTO calls AS c VALUES (p_node, p_seq, now, false, admitted, violated, remaining, resets, waits, NULL)
	ON CONFLICT (node, seq) DO UPDATE SET called_at = excluded.called_at, adjusts = false, admitted = excluded.admitted,
		violated = excluded.violated, remaining = excluded.remaining, resets = excluded.resets, waits = excluded.waits;
	PERFORM tidy_v1(clock);
END $$;

-- adjust changes earlier charges by costs. Arguments are as for take; taken_nodes,
-- taken_seqs and taken_at are the IDs and instants of the calls that have charged.
CREATE FUNCTION adjust_v1(
	p_node bigint, p_seq bigint, clock bigint,
	policies text[], keys bytea[],
	algorithms smallint[], quotas bigint[], bursts bigint[], periods bigint[], zones text[],
	costs bigint[], taken_nodes bigint[], taken_seqs bigint[], taken_at bigint[], ends bigint[], next_ends bigint[],
	OUT moved bigint[])
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
	rows limits[] := lock_v1(policies, keys, quotas);
	now  bigint   := microseconds_v1(clock);
	r    limits;
	u    usage;
	p    places;
	m    record;
	n    bigint;
BEGIN
	SELECT c.moved INTO moved
	FROM calls c WHERE c.node = p_node AND c.seq = p_seq AND c.adjusts AND c.called_at >= now - 5000000;
	IF FOUND THEN
		RETURN;
	END IF;
	moved := '{}';
	FOR i IN 1..cardinality(policies) LOOP
		moved[i] := 0;
		IF quotas[i] = 0 THEN
			CONTINUE;
		ELSIF algorithms[i] = 4 THEN
			n := places_of_v1(policies[i], keys[i], now);
			SELECT * INTO p FROM places q
			WHERE q.policy = policies[i] AND q.key = keys[i] AND q.node = taken_nodes[i] AND q.seq = taken_seqs[i];
			CONTINUE WHEN NOT FOUND;
			n := greatest(least(costs[i], greatest(quotas[i] - n, 0)), -p.taken);
			IF p.taken + n > 0 THEN
				UPDATE places q SET taken = q.taken + n
				WHERE q.policy = p.policy AND q.key = p.key AND q.node = p.node AND q.seq = p.seq;
			ELSE
				DELETE FROM places q WHERE q.policy = p.policy AND q.key = p.key AND q.node = p.node AND q.seq = p.seq;
			END IF;
			moved[i] := n;
			CONTINUE;
		END IF;
		r := rows[i];
		u := ROW(algorithms[i], quotas[i], bursts[i], periods[i], zones[i], 0, NULL, NULL, NULL, NULL, NULL, NULL);
		r.usages := present_v1(policies[i], r.usages, u, now, ends[i], next_ends[i]);
		m := move_v1(r.usages[1], now, taken_at[i], costs[i]);
		moved[i] := m.moved;
		r.usages[1] := m.u;
		r.usages := spread_v1(r.usages, now, taken_at[i], moved[i]);
		PERFORM keep_v1(rows[i], r.usages, now);
	END LOOP;
	INSERT INTO calls AS c VALUES (p_node, p_seq, now, true, NULL, NULL, NULL, NULL, NULL, moved)
	ON CONFLICT (node, seq) DO UPDATE SET called_at = excluded.called_at, adjusts = true, moved = excluded.moved;
	PERFORM tidy_v1(clock);
END $$;

-- renew starts the leases of places again. It returns the positions of the places that are
-- lost: not in use, or not readable.
CREATE FUNCTION renew_places_v1(
	clock bigint, policies text[], keys bytea[], nodes bigint[], seqs bigint[], lease bigint) RETURNS SETOF integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
	now bigint;
BEGIN
	-- The order is that of lock, or two calls could wait for each other.
	PERFORM 1 FROM limits l
	WHERE (l.policy, l.key) IN (SELECT p, k FROM unnest(policies, keys) AS x (p, k))
	ORDER BY l.policy, l.key FOR UPDATE;
	now := microseconds_v1(clock);
	RETURN QUERY
		WITH wanted AS (
			SELECT * FROM unnest(policies, keys, nodes, seqs) WITH ORDINALITY AS w (policy, key, node, seq, i)
		), renewed AS (
			UPDATE places p SET lease_ends = now + lease FROM wanted w
			WHERE p.policy = w.policy AND p.key = w.key AND p.node = w.node AND p.seq = w.seq
				AND p.taken > 0 AND p.lease_ends > now
			RETURNING p.policy, p.key, p.node, p.seq
		), kept AS (
			UPDATE limits l SET expires = greatest(l.expires, now + lease)
			WHERE (l.policy, l.key) IN (SELECT policy, key FROM renewed)
		)
		SELECT w.i::integer FROM wanted w
		WHERE NOT EXISTS (SELECT 1 FROM renewed r WHERE r.policy = w.policy AND r.key = w.key AND r.node = w.node AND r.seq = w.seq);
END $$;

INSERT INTO versions (version, serves) VALUES (4, 1);
