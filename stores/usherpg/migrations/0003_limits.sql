-- Rate limits: what a key has used under all its limits.
--
-- After a crash the server has forgotten limits, and nothing else: their tables are not
-- logged, which makes a decision several times cheaper.

-- A row is locked for each decision about its key. It is deleted some time after it
-- expires, when its presence makes no difference. An index on expires would make every
-- decision write to that index. Half of each page is left free, so that the new version of
-- a row fits next to the previous one, and no index is written at all.
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

-- corrupt fails a call because stored data cannot be read. The program interprets SQLSTATE
-- UC001.
CREATE FUNCTION corrupt_v1(policy text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'policy "%": the stored data of a key cannot be read', policy USING ERRCODE = 'UC001';
END $$;

-- present returns the usages of a key, with the usage under limit l as the first one. It
-- drops everything that no longer counts.
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
			-- An empty bucket is full after its burst. The bucket can be full later than
			-- that only if the clock was set back.
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

-- switch makes the usage under another limit the first one. A new limit starts with the
-- debts under all the others, one of which may be dropped.
CREATE FUNCTION switch_v1(usages usage[], l usage, now bigint, ends bigint, next_ends bigint)
RETURNS usage[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	u       usage;
	used    bigint;
	until   bigint;
	debts   bigint[] := '{}';
	known   usage[]  := '{}';
	first   integer;          -- of known: the usage that ends first
	soonest bigint;           -- when that is
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

-- keep writes the usages of a key if they differ from those that were read.
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
-- caller has locked the row of the key.
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

INSERT INTO versions (version, serves) VALUES (3, 1);
