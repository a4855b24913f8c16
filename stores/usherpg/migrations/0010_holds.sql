-- Rate limits: peeks, debts, holds, resets, and clocks that were ahead.
--
-- A key in debt, and a decision that holds units, are unknown to programs of the previous
-- version: they take an overdrawn bucket for an empty one, and count no holds.

-- When the last lease of the units that the key holds ends: only until then does a decision
-- look for them.
ALTER TABLE limits ADD COLUMN holds_until bigint NOT NULL DEFAULT 0;

-- What a decision holds under a limit that is not one of concurrency is in places too.
ALTER TABLE places ADD COLUMN hold boolean NOT NULL DEFAULT false;

-- readable reports whether this version can have written a usage. Null means no. "used" of a
-- token bucket is the number of tokens that were missing when it was last changed, if that
-- was more than its burst, and null otherwise.
CREATE FUNCTION readable_v2(u usage) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN u.missed >= 0 AND u.quota BETWEEN 1 AND 1000000000 AND u.period > 0 AND CASE u.algorithm
		WHEN 1 THEN u.burst BETWEEN 1 AND 1000000000 AND u.full_at >= 0 AND u.full_at < 1e30
			AND coalesce(u.used, 0) BETWEEN 0 AND 1000000000
		WHEN 2 THEN u.used BETWEEN 0 AND u.quota AND cardinality(u.stamps) % 2 = 0
			AND (u.used > 0) = (cardinality(u.stamps) > 0) AND array_position(u.stamps, NULL) IS NULL
		WHEN 3 THEN u.used BETWEEN 0 AND u.quota AND u.opened > 0 AND u.ends <= u.next_ends AND u.zone IS NOT NULL
	END;
END $$;

-- most_used returns how many tokens may be missing from a bucket that is overdrawn: those
-- of 36,600 days, and at most 1e9.
CREATE FUNCTION most_used_v1(u usage) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
	SELECT least(div(3162240000000000::numeric * u.quota, u.period), 1000000000)::bigint
$$;

-- left returns how many units are left.
CREATE FUNCTION left_v1(u usage, now bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF u.algorithm = 1 THEN
		RETURN greatest(u.burst - div(bucket_debt_v1(u, now) + u.period - 1, u.period), 0);
	END IF;
	RETURN greatest(u.quota - u.used, 0);
END $$;

-- move charges up to cost more units, as far as any are left, or refunds up to -cost units
-- that were charged at an instant. It returns how many it has moved, with the sign of cost.
-- If it overdraws, a token bucket lacks more than its burst.
CREATE FUNCTION move_v2(INOUT u usage, now bigint, at bigint, cost bigint, overdraw boolean, OUT moved bigint) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	d    numeric;
	i    integer;
	used bigint; -- tokens
BEGIN
	moved := 0;
	CASE u.algorithm
	WHEN 1 THEN
		d := bucket_debt_v1(u, now);
		used := div(d + u.period - 1, u.period);
		moved := CASE WHEN cost <= 0 THEN -least(-cost, used)
			ELSE least(cost, greatest(CASE WHEN overdraw THEN most_used_v1(u) ELSE u.burst END - used, 0)) END;
		IF moved <> 0 THEN
			u.full_at := now::numeric * u.quota + d + moved::numeric * u.period;
			u.used := CASE WHEN used + moved > u.burst THEN used + moved END;
		END IF;
	WHEN 2 THEN
		u := roll_v1(u, now);
		IF cost > 0 THEN
			moved := least(cost, u.quota - u.used);
			IF moved > 0 THEN
				-- These units are added to the original charge, where a refund finds them;
				-- but if that charge has expired, they would not count.
				u.stamps := add_v1(u.stamps, CASE WHEN at > now OR now - at >= u.period THEN now ELSE at END, moved);
			END IF;
		ELSIF cost < 0 THEN
			i := cardinality(u.stamps) - 1;
			WHILE i > 0 AND u.stamps[i] > at LOOP
				i := i - 2;
			END LOOP;
			IF i > 0 AND u.stamps[i] = at THEN
				moved := -least(-cost, u.stamps[i + 1]);
				IF u.stamps[i + 1] + moved > 0 THEN
					u.stamps[i + 1] := u.stamps[i + 1] + moved;
				ELSE
					u.stamps := u.stamps[:i - 1] || u.stamps[i + 2:];
				END IF;
			END IF;
		END IF;
		u.used := u.used + moved;
	ELSE
		IF now >= u.ends THEN
			u := open_v1(u, now, u.next_ends, u.next_ends);
		END IF;
		IF cost > 0 THEN
			moved := least(cost, u.quota - u.used);
		ELSIF at >= u.opened THEN
			moved := greatest(cost, -u.used);
		END IF;
		u.used := u.used + moved;
	END CASE;
END $$;

-- present returns the usages of a key, with the usage under limit l as the first one. It
-- drops everything that no longer counts.
CREATE FUNCTION present_v2(policy text, usages usage[], l usage, now bigint, ends bigint, next_ends bigint)
RETURNS usage[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	u usage;
BEGIN
	IF (cardinality(usages) <= 4) IS NOT TRUE THEN
		PERFORM corrupt_v1(policy);
	END IF;
	FOR i IN 1..cardinality(usages) LOOP
		u := usages[i];
		IF readable_v2(u) IS NOT TRUE THEN
			PERFORM corrupt_v1(policy);
		END IF;
		IF u.algorithm = 2 THEN
			u := roll_v1(u, now);
			IF readable_v2(u) IS NOT TRUE THEN
				PERFORM corrupt_v1(policy); -- the sum of the stamps is wrong
			END IF;
			usages[i] := u;
		ELSIF u.algorithm = 1 AND u.full_at > now::numeric * u.quota + greatest(u.burst, u.used)::numeric * u.period THEN
			-- An empty bucket is full after its burst, or after its debt. The bucket can be
			-- full later than that only if the clock was set back.
			u.full_at := now::numeric * u.quota + greatest(u.burst, u.used)::numeric * u.period;
			usages[i] := u;
		END IF;
	END LOOP;
	IF usages = '{}' THEN
		RETURN ARRAY[start_v1(l, now, ends, next_ends, '{}')];
	END IF;
	u := usages[1];
	IF NOT same_v1(u, l) THEN
		usages := switch_v1(usages, l, now, ends, next_ends);
		u := usages[1];
	END IF;
	IF u.algorithm = 3 AND now >= u.ends THEN
		usages[1] := open_v1(u, now, ends, next_ends);
	ELSIF u.algorithm = 3 AND now < present_v2.ends AND present_v2.ends < u.ends THEN
		-- The clock was ahead and has been set back: the present window takes the place of
		-- the later one, with what was used in it.
		u.ends := present_v2.ends;
		u.next_ends := present_v2.next_ends;
		u.opened := least(u.opened, now);
		usages[1] := u;
	END IF;
	RETURN usages;
END $$;

-- spread charges the usages under other limits with what was charged under the first. It
-- drops a calendar window if neither it nor the next one contains now.
CREATE FUNCTION spread_v2(usages usage[], now bigint, at bigint, cost bigint) RETURNS usage[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	u     usage;
	kept  usage[] := usages[:1];
	rest  bigint;
	m     record;
BEGIN
	FOREACH u IN ARRAY usages[2:] LOOP
		CONTINUE WHEN u.algorithm = 3 AND now >= u.next_ends;
		rest := cost;
		IF cost < 0 THEN
			rest := least(cost + u.missed, 0);
			u.missed := u.missed - (rest - cost);
		END IF;
		m := move_v2(u, now, at, rest, false);
		u := m.u;
		IF cost > 0 THEN
			u.missed := u.missed + cost - m.moved;
		END IF;
		kept := kept || u;
	END LOOP;
	RETURN kept;
END $$;

-- lock makes and locks the rows of keys, in one order for all callers, so that no two wait
-- for each other. It skips charges whose quota is 0: they touch nothing. For a peek, it only
-- reads the rows.
CREATE FUNCTION lock_v2(policies text[], keys bytea[], quotas bigint[], peek boolean) RETURNS limits[] LANGUAGE plpgsql AS $$
DECLARE
	r    limits;
	rows limits[] := '{}';
BEGIN
	FOR i IN 1..cardinality(policies) LOOP
		IF i > 1 AND policies[i] COLLATE "C" <= policies[i - 1] THEN
			RAISE EXCEPTION 'the policies of a decision are not in order, or one occurs twice' USING ERRCODE = 'UC003';
		END IF;
		r := NULL;
		IF quotas[i] > 0 AND peek THEN
			SELECT * INTO r FROM limits WHERE policy = policies[i] AND key = keys[i];
			IF NOT FOUND THEN
				r.usages := '{}';
			END IF;
		ELSIF quotas[i] > 0 THEN
			LOOP
				SELECT * INTO r FROM limits WHERE policy = policies[i] AND key = keys[i] FOR UPDATE;
				EXIT WHEN FOUND;
				INSERT INTO limits (policy, key) VALUES (policies[i], keys[i]) ON CONFLICT DO NOTHING;
			END LOOP;
		END IF;
		rows[i] := r;
	END LOOP;
	RETURN rows;
END $$;

-- keep writes what a key has used and holds if that differs from what was read.
CREATE FUNCTION keep_v2(r limits, usages usage[], holds_until bigint, now bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	latest bigint := greatest(r.expires, holds_until);
BEGIN
	IF usages = r.usages AND holds_until = r.holds_until THEN
		RETURN;
	END IF;
	FOR i IN 1..cardinality(usages) LOOP
		latest := greatest(latest, (debt_v1(usages[i], now)).until);
	END LOOP;
	UPDATE limits l SET usages = keep_v2.usages, expires = latest, holds_until = keep_v2.holds_until WHERE l.policy = r.policy AND l.key = r.key;
END $$;

-- places_of returns how many places a key uses, or how many units it holds, and how many of
-- them belong to a decision. Unless it is for a peek, it frees those whose lease has ended;
-- the caller has locked the row of the key.
CREATE FUNCTION places_of_v2(
	p_policy text, p_key bytea, p_node bigint, p_seq bigint, p_hold boolean, now bigint, peek boolean,
	OUT used bigint, OUT own bigint) LANGUAGE plpgsql AS $$
DECLARE
	ended boolean;
	bad   boolean;
BEGIN
	SELECT coalesce(sum(taken) FILTER (WHERE lease_ends > now AND hold = p_hold), 0),
		coalesce(sum(taken) FILTER (WHERE lease_ends > now AND hold = p_hold AND node = p_node AND seq = p_seq), 0),
		bool_or(lease_ends <= now), bool_or(taken <= 0 OR lease_ends <= 0)
	INTO used, own, ended, bad FROM places WHERE policy = p_policy AND key = p_key;
	IF bad THEN
		PERFORM corrupt_v1(p_policy);
	END IF;
	IF ended AND NOT peek THEN
		DELETE FROM places WHERE policy = p_policy AND key = p_key AND lease_ends <= now;
	END IF;
END $$;

-- keep_place adds n places or units to those of a decision, or frees -n of them.
CREATE FUNCTION keep_place_v1(
	p_policy text, p_key bytea, p_node bigint, p_seq bigint, n bigint, p_ends bigint, p_hold boolean)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF p_ends IS NOT NULL THEN
		INSERT INTO places VALUES (p_policy, p_key, p_node, p_seq, n, p_ends, p_hold)
		ON CONFLICT (policy, key, node, seq)
		DO UPDATE SET taken = places.taken + excluded.taken; -- an ID of long ago
		RETURN;
	END IF;
	DELETE FROM places WHERE policy = p_policy AND key = p_key AND node = p_node AND seq = p_seq AND taken + n <= 0;
	IF NOT FOUND AND n <> 0 THEN
		UPDATE places SET taken = taken + n WHERE policy = p_policy AND key = p_key AND node = p_node AND seq = p_seq;
	END IF;
END $$;

-- take decides one request. Each array has one element for each charge, in the order of the
-- policies. All arguments and results are in microseconds; clock is null except in tests. A
-- wait of -1 never ends. A peek writes nothing.
CREATE FUNCTION take_v2(
	p_node bigint, p_seq bigint, clock bigint,
	policies text[], keys bytea[],
	algorithms smallint[], quotas bigint[], bursts bigint[], periods bigint[], zones text[], -- of the limits
	costs bigint[], minima bigint[], shadows boolean[], ends bigint[], next_ends bigint[], leases bigint[], holds boolean[], peek boolean,
	OUT admitted boolean, OUT called_at bigint,
	OUT violated boolean[], OUT remaining bigint[], OUT resets bigint[], OUT waits bigint[])
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
	n      integer  := cardinality(policies);
	rows   limits[] := lock_v2(policies, keys, quotas, peek);
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
	IF NOT peek THEN
		SELECT c.called_at, c.admitted, c.violated, c.remaining, c.resets, c.waits
		INTO called_at, admitted, violated, remaining, resets, waits
		FROM calls c WHERE c.node = p_node AND c.seq = p_seq AND NOT c.adjusts AND c.called_at >= now - 5000000;
		IF FOUND THEN
			RETURN;
		END IF;
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
			used := (places_of_v2(policies[i], keys[i], p_node, p_seq, false, now, peek)).used;
			remaining[i] := greatest(quotas[i] - used, 0);
			violated[i] := need > 0 AND used + need > quotas[i];
			IF need > quotas[i] THEN waits[i] := -1; END IF;
		ELSE
			r := rows[i];
			u := ROW(algorithms[i], quotas[i], bursts[i], periods[i], zones[i], 0, NULL, NULL, NULL, NULL, NULL, NULL);
			r.usages := present_v2(policies[i], r.usages, u, now, ends[i], next_ends[i]);
			after[i] := r;
			u := r.usages[1];
			IF u.algorithm = 1 THEN
				debt := bucket_debt_v1(u, now);
				used := div(debt + u.period - 1, u.period);
				remaining[i] := greatest(u.burst - used, 0);
				IF debt > 0 THEN
					resets[i] := div(debt - (least(used, u.burst) - 1) * u.period::numeric + u.quota - 1, u.quota);
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
			IF r.holds_until > now THEN
				IF NOT violated[i] THEN waits[i] := 0; END IF;
				used := (places_of_v2(policies[i], keys[i], p_node, p_seq, true, now, peek)).used;
				remaining[i] := greatest(remaining[i] - used, 0);
				violated[i] := violated[i] OR need > remaining[i];
			END IF;
		END IF;
		IF NOT violated[i] THEN
			waits[i] := 0;
		ELSIF NOT shadows[i] THEN
			admitted := false;
		END IF;
	END LOOP;
	IF peek THEN
		RETURN;
	END IF;

	FOR i IN 1..n LOOP
		CONTINUE WHEN quotas[i] = 0;
		IF admitted AND NOT violated[i] THEN
			remaining[i] := greatest(remaining[i] - costs[i], 0);
		END IF;
		IF algorithms[i] = 4 THEN
			IF admitted AND NOT violated[i] AND costs[i] > 0 THEN
				PERFORM keep_place_v1(policies[i], keys[i], p_node, p_seq, costs[i], now + leases[i], false);
				UPDATE limits l SET expires = greatest(l.expires, now + leases[i])
				WHERE l.policy = policies[i] AND l.key = keys[i];
			END IF;
			CONTINUE;
		END IF;
		r := after[i];
		IF holds[i] THEN
			IF admitted AND NOT violated[i] AND costs[i] > 0 THEN
				PERFORM keep_place_v1(policies[i], keys[i], p_node, p_seq, costs[i], now + leases[i], true);
				r.holds_until := greatest(r.holds_until, now + leases[i]);
			END IF;
		ELSIF admitted AND NOT violated[i] THEN
			u := r.usages[1];
			IF costs[i] > 0 THEN
				IF u.algorithm = 1 THEN
					IF resets[i] = 0 THEN resets[i] := div(u.period + u.quota - 1, u.quota); END IF;
					u.full_at := now::numeric * u.quota + bucket_debt_v1(u, now) + costs[i]::numeric * u.period;
					u.used := NULL;
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
				r.usages := spread_v2(r.usages, now, now, costs[i]);
			END IF;
		END IF;
		PERFORM keep_v2(rows[i], r.usages, r.holds_until, now);
	END LOOP;

	INSERT INTO calls AS c VALUES (p_node, p_seq, now, false, admitted, violated, remaining, resets, waits, NULL)
	ON CONFLICT (node, seq) DO UPDATE SET called_at = excluded.called_at, adjusts = false, admitted = excluded.admitted,
		violated = excluded.violated, remaining = excluded.remaining, resets = excluded.resets, waits = excluded.waits;
	PERFORM tidy_v1(clock);
END $$;

-- adjust changes earlier charges by costs. Arguments are as for take; taken_nodes,
-- taken_seqs and taken_at are the IDs and instants of the calls that have charged.
CREATE FUNCTION adjust_v2(
	p_node bigint, p_seq bigint, clock bigint,
	policies text[], keys bytea[],
	algorithms smallint[], quotas bigint[], bursts bigint[], periods bigint[], zones text[],
	costs bigint[], taken_nodes bigint[], taken_seqs bigint[], taken_at bigint[], ends bigint[], next_ends bigint[],
	overdraws boolean[], holds boolean[], hold_ends boolean[],
	OUT moved bigint[])
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
	rows limits[] := lock_v2(policies, keys, quotas, false);
	now  bigint   := microseconds_v1(clock);
	r    limits;
	u    usage;
	m    record;
	used bigint; -- places, or units on hold
	own  bigint; -- of these, those of the decision that has charged
	cost bigint;
	at   bigint;
	overdraw boolean;
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
			SELECT p.used, p.own INTO used, own
			FROM places_of_v2(policies[i], keys[i], taken_nodes[i], taken_seqs[i], false, now, false) AS p;
			IF own > 0 THEN
				moved[i] := greatest(least(costs[i], greatest(quotas[i] - used, 0)), -own);
				PERFORM keep_place_v1(policies[i], keys[i], taken_nodes[i], taken_seqs[i], moved[i], NULL, false);
			END IF;
			CONTINUE;
		END IF;
		r := rows[i];
		u := ROW(algorithms[i], quotas[i], bursts[i], periods[i], zones[i], 0, NULL, NULL, NULL, NULL, NULL, NULL);
		r.usages := present_v2(policies[i], r.usages, u, now, ends[i], next_ends[i]);
		u := r.usages[1];
		at := taken_at[i];
		cost := costs[i];
		used := 0;
		own := 0;
		IF r.holds_until > now THEN
			SELECT p.used, p.own INTO used, own
			FROM places_of_v2(policies[i], keys[i], taken_nodes[i], taken_seqs[i], true, now, false) AS p;
		END IF;
		IF holds[i] AND hold_ends[i] THEN
			IF own > 0 THEN
				PERFORM keep_place_v1(policies[i], keys[i], taken_nodes[i], taken_seqs[i], -own, NULL, true);
				used := used - own;
			END IF;
			cost := greatest(cost, 0);
			at := now;
		END IF;
		overdraw := overdraws[i] AND u.algorithm = 1 AND (NOT holds[i] OR hold_ends[i]);
		IF cost > 0 AND NOT overdraw AND (holds[i] OR used > 0) THEN
			cost := least(cost, greatest(left_v1(u, now) - used, 0));
		END IF;
		IF holds[i] AND NOT hold_ends[i] THEN
			IF own > 0 THEN
				moved[i] := greatest(cost, -own);
				PERFORM keep_place_v1(policies[i], keys[i], taken_nodes[i], taken_seqs[i], moved[i], NULL, true);
			END IF;
		ELSE
			m := move_v2(u, now, at, cost, overdraw);
			moved[i] := m.moved;
			r.usages[1] := m.u;
			r.usages := spread_v2(r.usages, now, at, moved[i]);
		END IF;
		PERFORM keep_v2(rows[i], r.usages, r.holds_until, now);
	END LOOP;
	INSERT INTO calls AS c VALUES (p_node, p_seq, now, true, NULL, NULL, NULL, NULL, NULL, moved)
	ON CONFLICT (node, seq) DO UPDATE SET called_at = excluded.called_at, adjusts = true, moved = excluded.moved;
	PERFORM tidy_v1(clock);
END $$;

-- renew starts the leases of places and holds again. It returns the positions of those that
-- are lost: not in use, or not readable.
CREATE FUNCTION renew_places_v2(
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
			RETURNING p.policy, p.key, p.node, p.seq, p.hold
		), kept AS (
			UPDATE limits l SET expires = greatest(l.expires, now + lease),
				holds_until = CASE WHEN k.hold THEN greatest(l.holds_until, now + lease) ELSE l.holds_until END
			FROM (SELECT policy, key, bool_or(hold) AS hold FROM renewed GROUP BY policy, key) AS k
			WHERE l.policy = k.policy AND l.key = k.key
		)
		SELECT w.i::integer FROM wanted w
		WHERE NOT EXISTS (SELECT 1 FROM renewed r WHERE r.policy = w.policy AND r.key = w.key AND r.node = w.node AND r.seq = w.seq);
END $$;

-- reset forgets what keys have used. It can read no usage, so it removes those that are not
-- readable too. Holds and places stay.
CREATE FUNCTION reset_limits_v1(policies text[], keys bytea[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	r record;
BEGIN
	-- The order is that of lock, or two calls could wait for each other. It changes only rows
	-- that it has locked: another call may make a row of an earlier key meanwhile.
	FOR r IN
		SELECT l.policy, l.key FROM limits l
		WHERE (l.policy, l.key) IN (SELECT p, k FROM unnest(policies, keys) AS x (p, k))
		ORDER BY l.policy, l.key FOR UPDATE
	LOOP
		UPDATE limits l SET usages = '{}' WHERE l.policy = r.policy AND l.key = r.key AND l.usages IS DISTINCT FROM '{}';
	END LOOP;
END $$;

INSERT INTO versions (version, serves) VALUES (10, 1);
