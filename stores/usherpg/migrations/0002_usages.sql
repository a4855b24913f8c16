-- Rate limits: what a key has used under one limit.
--
-- This is the arithmetic that package ratelimit specifies for its stores, in whole
-- microseconds. All of it is exact: the same decisions at the same instants have the same
-- results in every store.

-- A usage is what a key has used under one limit. The first five attributes are the limit.
CREATE TYPE usage AS (
	algorithm smallint, -- 1 token bucket, 2 rolling window, 3 calendar window
	quota     bigint,
	burst     bigint,   -- of a token bucket
	period    bigint,   -- in microseconds; the unit of a calendar window
	zone      text,     -- the time zone of a calendar window
	-- The units that were charged under another limit of the key and did not fit here.
	-- Refunds reduce them first, since they were never charged here.
	missed    bigint,
	-- Of a token bucket: the instant at which it is full, in microseconds * quota. In this
	-- unit a token is earned in exactly "period".
	full_at   numeric,
	-- Of a window.
	used      bigint,
	-- Of a rolling window: the instants of charges and their costs, in turn, oldest first.
	stamps    bigint[],
	-- Of a calendar window: when the key first used it, when it ends, and when the next one
	-- ends. The latter equals ends if it is not known.
	opened    bigint,
	ends      bigint,
	next_ends bigint
);

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

-- add charges a cost at an instant, which is nearly always the latest one.
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

-- debt returns what counts under a new limit of the key: the number of used units, and the
-- instant until which they are used. A token that is partly earned again counts as used.
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

-- open begins the calendar window that contains now: the one that ends at ends, or the next
-- one. It fails if neither does. The program interprets SQLSTATE UC002.
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

-- start returns the usage under a new limit of a key that has debts under others. The debts
-- record the same use, as used and until in turn.
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
		-- A debt counts as a whole until its last unit expires, so never too little counts.
		-- A debt that ends later is part of a greater one.
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

-- same reports whether two usages are under the same limit.
CREATE FUNCTION same_v1(a usage, b usage) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN a.algorithm = b.algorithm AND a.quota = b.quota AND a.burst = b.burst AND a.period = b.period AND a.zone = b.zone;
END $$;

INSERT INTO versions (version, serves) VALUES (2, 1);
