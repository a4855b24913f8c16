-- Rate limits.
--
-- This is the arithmetic of package ratelimit, in whole microseconds. All of it is exact:
-- the same decisions at the same instants have the same results in every store.
--
-- A crash of the server forgets limits, and nothing else: the tables are not written to the
-- log, which makes a decision several times cheaper.

-- A usage is what a key has used under one limit. The first five attributes are the limit.
CREATE TYPE usage AS (
	algorithm smallint, -- 1 token bucket, 2 rolling window, 3 calendar window
	quota     bigint,
	burst     bigint,   -- of a token bucket
	period    bigint,   -- in microseconds; the unit of a calendar window
	zone      text,     -- the time zone of a calendar window
	-- What was charged under another limit of the key and did not fit here. Refunds reduce
	-- it first, since these units were never charged here.
	missed    bigint,
	-- Of a token bucket: the instant at which it is full, in microseconds * quota. In this
	-- unit a token is earned in exactly "period".
	full_at   numeric,
	-- Of a window.
	used      bigint,
	-- Of a rolling window: instants and what was charged then, in turn, oldest first.
	stamps    bigint[],
	-- Of a calendar window: when the key first used it, when it ends, and when the next one
	-- ends, which equals the former if it is not known.
	opened    bigint,
	ends      bigint,
	next_ends bigint
);

-- A row is locked for each decision about its key. It is deleted some time after it
-- expires, when having it and not having it are the same. An index on expires would make
-- every decision write to that index; half of a page is left free so that the new version of
-- a row fits beside the previous one, and no index is written at all.
CREATE UNLOGGED TABLE limits (
	policy  text    COLLATE "C",
	key     bytea,              -- the digest of the key
	usages  usage[] NOT NULL DEFAULT '{}', -- at most 4; the first is that under the latest limit
	expires bigint  NOT NULL DEFAULT 0,    -- microseconds since 1970
	PRIMARY KEY (policy, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

ALTER TABLE limits ALTER COLUMN usages SET STORAGE EXTERNAL; -- stamps hardly compress

-- The places of concurrency limits that are in use, by the decision that has taken them.
-- They are read and written under the lock of the row of their key in limits.
CREATE UNLOGGED TABLE places (
	policy     text COLLATE "C",
	key        bytea,
	node       bigint, -- of the ID of the decision
	seq        bigint,
	taken      bigint NOT NULL,
	lease_ends bigint NOT NULL,
	PRIMARY KEY (policy, key, node, seq)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

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

-- Where the search for expired limits goes on: one row, which is locked by the call that
-- searches.
CREATE UNLOGGED TABLE progress (
	single boolean PRIMARY KEY CHECK (single),
	policy text    COLLATE "C" NOT NULL,
	key    bytea   NOT NULL
);

-- corrupt fails a call because of what is stored. SQLSTATE UC001 is read by the program.
CREATE FUNCTION corrupt_v1(policy text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'policy "%": what is stored for a key cannot be read', policy USING ERRCODE = 'UC001';
END $$;

-- readable reports whether this version can have written a usage. Null means no.
CREATE FUNCTION readable_v1(u usage) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN u.missed >= 0 AND u.quota BETWEEN 1 AND 1000000000 AND u.period > 0 AND CASE u.algorithm
		WHEN 1 THEN u.burst BETWEEN 1 AND 1000000000 AND u.full_at >= 0 AND u.full_at < 1e30
		WHEN 2 THEN u.used BETWEEN 0 AND u.quota AND cardinality(u.stamps) % 2 = 0
			AND (u.used > 0) = (cardinality(u.stamps) > 0) AND array_position(u.stamps, NULL) IS NULL
		WHEN 3 THEN u.used BETWEEN 0 AND u.quota AND u.opened > 0 AND u.ends <= u.next_ends AND u.zone IS NOT NULL
	END;
END $$;

-- roll drops the stamps that no longer count. A charge counts for the whole length of the
-- window and not an instant longer. Charges of the future, from before the clock was set
-- back, count from now.
CREATE FUNCTION roll_v1(u usage, now bigint) RETURNS usage LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	stamps bigint[] := u.stamps;
	n      integer  := cardinality(stamps);
	i      integer  := 1;
	ahead  bigint   := 0;
BEGIN
	WHILE i < n AND now - stamps[i] >= u.period LOOP
		u.used := u.used - stamps[i + 1];
		i := i + 2;
	END LOOP;
	IF i > 1 THEN
		stamps := stamps[i:];
		n := n - i + 1;
	END IF;
	IF n > 0 AND stamps[n - 1] > now THEN
		WHILE n > 0 AND stamps[n - 1] >= now LOOP
			ahead := ahead + stamps[n];
			n := n - 2;
		END LOOP;
		stamps := stamps[:n] || now || ahead;
	END IF;
	u.stamps := stamps;
	RETURN u;
END $$;

-- add charges a cost at an instant, which is nearly always the latest.
CREATE FUNCTION add_v1(stamps bigint[], at bigint, cost bigint) RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	i integer := cardinality(stamps) - 1; -- of an instant
BEGIN
	WHILE i > 0 AND stamps[i] > at LOOP
		i := i - 2;
	END LOOP;
	IF i > 0 AND stamps[i] = at THEN
		stamps[i + 1] := stamps[i + 1] + cost;
		RETURN stamps;
	END IF;
	RETURN stamps[:i + 1] || at || cost || stamps[i + 2:];
END $$;

-- bucket_debt returns how far a token bucket is from full, in the unit of full_at.
CREATE FUNCTION bucket_debt_v1(u usage, now bigint) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
	SELECT greatest(u.full_at - now::numeric * u.quota, 0)
$$;

-- debt returns what counts under a new limit of the key: the units that are used, and until
-- when any of them are. A token that is partly earned again counts as used.
CREATE FUNCTION debt_v1(u usage, now bigint, OUT used bigint, OUT until bigint) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	d numeric;
BEGIN
	CASE u.algorithm
	WHEN 1 THEN
		d := bucket_debt_v1(u, now);
		used := div(d + u.period - 1, u.period);
		until := now + div(d + u.quota - 1, u.quota);
	WHEN 2 THEN
		u := roll_v1(u, now);
		used := u.used;
		until := coalesce(u.stamps[cardinality(u.stamps) - 1] + u.period, 0);
	ELSE
		used := u.used;
		until := u.ends;
	END CASE;
END $$;

-- start returns the usage under a new limit of a key that has debts under others, which
-- record the same use: used and until, in turn.
CREATE FUNCTION start_v1(l usage, now bigint, ends bigint, next_ends bigint, debts bigint[])
RETURNS usage LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	u     usage := l;
	most  bigint; -- of the units of the debts
	d     record;
BEGIN
	u.missed := 0;
	SELECT coalesce(max(debts[i]), 0) INTO most FROM generate_series(1, cardinality(debts), 2) AS i;
	CASE l.algorithm
	WHEN 1 THEN
		u.full_at := CASE WHEN most > 0 THEN now::numeric * l.quota + least(most, l.burst)::numeric * l.period ELSE 0 END;
	WHEN 2 THEN
		u.used := 0;
		u.stamps := '{}';
		-- A whole debt counts until its last unit expires, so never too little counts. A debt
		-- that ends later is part of a greater one.
		FOR d IN
			SELECT debts[i] AS used, debts[i + 1] AS until FROM generate_series(1, cardinality(debts), 2) AS i
			ORDER BY debts[i + 1] DESC
		LOOP
			IF least(d.used, l.quota) > u.used THEN
				u.stamps := add_v1(u.stamps, least(d.until - l.period, now), least(d.used, l.quota) - u.used);
				u.used := least(d.used, l.quota);
			END IF;
		END LOOP;
	ELSE
		u := open_v1(u, now, ends, next_ends);
		u.used := least(most, l.quota);
	END CASE;
	RETURN u;
END $$;

-- open begins the calendar window that contains now: the one that ends at ends, or the next
-- one. It fails if neither does. SQLSTATE UC002 is read by the program.
CREATE FUNCTION open_v1(u usage, now bigint, ends bigint, next_ends bigint) RETURNS usage LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF now >= next_ends THEN
		RAISE EXCEPTION 'the clocks of the process and of PostgreSQL are too far apart: the time of the server is in neither of the two calendar windows'
			USING ERRCODE = 'UC002';
	END IF;
	u.used := 0;
	u.opened := now;
	u.ends := CASE WHEN now < ends THEN ends ELSE next_ends END;
	u.next_ends := next_ends;
	RETURN u;
END $$;

-- same reports whether two usages are under the same limit.
CREATE FUNCTION same_v1(a usage, b usage) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN a.algorithm = b.algorithm AND a.quota = b.quota AND a.burst = b.burst AND a.period = b.period AND a.zone = b.zone;
END $$;

-- switch makes the usage under another limit the first one. A limit that is new starts
-- with the debts under all the others, one of which may be dropped.
CREATE FUNCTION switch_v1(usages usage[], l usage, now bigint, ends bigint, next_ends bigint)
RETURNS usage[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	u      usage;
	used   bigint;
	until  bigint;
	debts  bigint[] := '{}';
	known  usage[]  := '{}';
	first  integer;          -- of known: the usage that ends first
	soonest bigint;
BEGIN
	FOR i IN 2..cardinality(usages) LOOP
		IF same_v1(usages[i], l) THEN
			u := usages[i];
			usages[i] := usages[1];
			usages[1] := u;
			RETURN usages;
		END IF;
	END LOOP;
	FOREACH u IN ARRAY usages[2:] || usages[1] LOOP
		SELECT d.used, d.until INTO used, until FROM debt_v1(u, now) AS d;
		IF until > now THEN
			known := known || u;
			debts := debts || used || until;
			IF soonest IS NULL OR until < soonest THEN
				soonest := until;
				first := cardinality(known);
			END IF;
		END IF;
	END LOOP;
	u := start_v1(l, now, ends, next_ends, debts);
	IF cardinality(known) > 3 THEN
		known := known[:first - 1] || known[first + 1:];
	END IF;
	RETURN u || known;
END $$;

-- present returns the usages of a key with that under limit l as the first one, from which
-- everything has been dropped that no longer counts.
CREATE FUNCTION present_v1(policy text, usages usage[], l usage, now bigint, ends bigint, next_ends bigint)
RETURNS usage[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	u usage;
BEGIN
	IF (cardinality(usages) <= 4) IS NOT TRUE THEN
		PERFORM corrupt_v1(policy);
	END IF;
	FOR i IN 1..cardinality(usages) LOOP
		u := usages[i];
		IF readable_v1(u) IS NOT TRUE THEN
			PERFORM corrupt_v1(policy);
		END IF;
		IF u.algorithm = 2 THEN
			u := roll_v1(u, now);
			IF readable_v1(u) IS NOT TRUE THEN
				PERFORM corrupt_v1(policy); -- the sum of the stamps is wrong
			END IF;
			usages[i] := u;
		ELSIF u.algorithm = 1 AND u.full_at > now::numeric * u.quota + u.burst::numeric * u.period THEN
			-- An empty bucket is full after its burst. Only if the clock was set back can that
			-- be further away.
			u.full_at := now::numeric * u.quota + u.burst::numeric * u.period;
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
	END IF;
	RETURN usages;
END $$;

-- move charges up to cost more units, as far as any are left, or refunds up to -cost units
-- that were charged at an instant. It returns how many it has moved, with the sign of cost.
CREATE FUNCTION move_v1(INOUT u usage, now bigint, at bigint, cost bigint, OUT moved bigint) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	d numeric;
	i integer;
BEGIN
	moved := 0;
	CASE u.algorithm
	WHEN 1 THEN
		d := bucket_debt_v1(u, now);
		moved := div(d + u.period - 1, u.period); -- the tokens that are used
		moved := CASE WHEN cost > 0 THEN least(cost, u.burst - moved) ELSE -least(-cost, moved) END;
		IF moved <> 0 THEN
			u.full_at := now::numeric * u.quota + d + moved::numeric * u.period;
		END IF;
	WHEN 2 THEN
		u := roll_v1(u, now);
		IF cost > 0 THEN
			moved := least(cost, u.quota - u.used);
			IF moved > 0 THEN
				-- Added to the original charge, where a refund finds the units; but if that
				-- charge has expired, they would count for nothing.
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

-- spread charges the usages under other limits with what was charged under the first. It
-- drops a calendar window if neither it nor the next one contains now.
CREATE FUNCTION spread_v1(usages usage[], now bigint, at bigint, cost bigint) RETURNS usage[] LANGUAGE plpgsql IMMUTABLE AS $$
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
		m := move_v1(u, now, at, rest);
		u := m.u;
		IF cost > 0 THEN
			u.missed := u.missed + cost - m.moved;
		END IF;
		kept := kept || u;
	END LOOP;
	RETURN kept;
END $$;

-- lock makes and locks the rows of keys, in one order for all callers, so that no two wait
-- for each other. It skips charges whose quota is 0: they touch nothing.
CREATE FUNCTION lock_v1(policies text[], keys bytea[], quotas bigint[]) RETURNS limits[] LANGUAGE plpgsql AS $$
DECLARE
	r    limits;
	rows limits[] := '{}';
BEGIN
	FOR i IN 1..cardinality(policies) LOOP
		IF i > 1 AND policies[i] COLLATE "C" <= policies[i - 1] THEN
			RAISE EXCEPTION 'the policies of a decision are not in order, or one occurs twice' USING ERRCODE = 'UC003';
		END IF;
		r := NULL;
		IF quotas[i] > 0 THEN
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

-- keep writes the usages of a key if they are others than those that were read.
CREATE FUNCTION keep_v1(r limits, usages usage[], now bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	latest bigint := r.expires;
BEGIN
	IF usages = r.usages THEN
		RETURN;
	END IF;
	FOR i IN 1..cardinality(usages) LOOP
		latest := greatest(latest, (debt_v1(usages[i], now)).until);
	END LOOP;
	UPDATE limits l SET usages = keep_v1.usages, expires = latest WHERE l.policy = r.policy AND l.key = r.key;
END $$;

-- places_of returns how many places a key uses, and frees those whose lease has ended. The
-- row of the key is locked.
CREATE FUNCTION places_of_v1(p_policy text, p_key bytea, now bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	used  bigint;
	ended boolean;
	bad   boolean;
BEGIN
	SELECT coalesce(sum(taken) FILTER (WHERE lease_ends > now), 0), bool_or(lease_ends <= now), bool_or(taken <= 0 OR lease_ends <= 0)
	INTO used, ended, bad FROM places WHERE policy = p_policy AND key = p_key;
	IF bad THEN
		PERFORM corrupt_v1(p_policy);
	END IF;
	IF ended THEN
		DELETE FROM places WHERE policy = p_policy AND key = p_key AND lease_ends <= now;
	END IF;
	RETURN used;
END $$;

-- microseconds returns the time of the server, or that of a test.
CREATE FUNCTION microseconds_v1(test bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
	SELECT coalesce(test, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
$$;

-- take decides one request. Each array has one element for each charge, in the order of
-- the policies. All arguments and results are in microseconds; clock is null but in tests.
-- A wait of -1 never ends.
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
	-- Read with all rows locked, so that the time of a key does not go back.
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

-- adjust changes what was charged before, by costs. Arguments are as for take; taken_nodes,
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

-- renew starts the leases of places again. It returns the positions of those that are not
-- in use, and, as negative numbers, of those that cannot be read: these do not keep the
-- others from being renewed.
CREATE FUNCTION renew_places_v1(
	clock bigint, policies text[], keys bytea[], nodes bigint[], seqs bigint[], lease bigint) RETURNS SETOF integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
	now bigint;
BEGIN
	-- As in lock, or else two calls could wait for each other.
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
		SELECT (CASE WHEN p.taken <= 0 OR p.lease_ends <= 0 THEN -w.i ELSE w.i END)::integer
		FROM wanted w LEFT JOIN places p ON p.policy = w.policy AND p.key = w.key AND p.node = w.node AND p.seq = w.seq
		WHERE NOT EXISTS (SELECT 1 FROM renewed r WHERE r.policy = w.policy AND r.key = w.key AND r.node = w.node AND r.seq = w.seq);
END $$;

-- tidy removes, in one of 64 calls, more than 64 calls leave behind on average. It waits
-- for nobody. A test that sets the clock is not to remove what belongs to others.
CREATE FUNCTION tidy_v1(clock bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF clock IS NULL AND random() < 1.0 / 64 THEN
		PERFORM remove_calls_v1(256, NULL);
		PERFORM remove_limits_v1(256, NULL);
	END IF;
END $$;

-- remove_calls forgets calls that cannot be repeated any more.
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

-- remove_limits looks at the next rows after those that it has looked at before, and
-- removes the expired ones, with their places. After the last row it begins again.
CREATE FUNCTION remove_limits_v1(most integer, clock bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	at   progress;
	last record;
	now  bigint := microseconds_v1(clock);
	n    bigint;
BEGIN
	SELECT * INTO at FROM progress FOR UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		-- Another call is at it, or nothing was searched since a crash.
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
			AND expires BETWEEN 0 AND now -- a negative one cannot be read
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

INSERT INTO versions (version, serves) VALUES (2, 1);
