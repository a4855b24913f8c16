-- API keys: what operators do with those of all owners, and the changes that every program
-- follows.

-- matches_key reports whether a key meets all conditions of a filter, and also if it
-- cannot be read. A condition that is not set is missing.
CREATE FUNCTION matches_key_v1(k keys, f jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT readable_key_v1(k) IS NOT TRUE OR (
		(NOT f ? 'owner' OR k.owner = f ->> 'owner')
		AND (NOT f ? 'created_by' OR k.created_by = f ->> 'created_by')
		AND (NOT f ? 'parent' OR k.parent = f ->> 'parent')
		AND (NOT f ? 'environment' OR k.environment = f ->> 'environment')
		AND (NOT f ? 'plan' OR CASE k.plan_override WHEN '' THEN k.plan ELSE k.plan_override END = f ->> 'plan')
		AND (NOT f ? 'prefix' OR starts_with(k.prefix, f ->> 'prefix'))
		AND (NOT f ? 'status' OR f ->> 'status' = CASE
			WHEN k.revoked_at IS NOT NULL THEN 'revoked'
			WHEN k.expires_at <= (f ->> 'now')::bigint THEN 'expired'
			WHEN k.disabled_at IS NOT NULL THEN 'disabled'
			ELSE 'active' END)
		AND (NOT f ? 'expires_before' OR coalesce(k.expires_at < (f ->> 'expires_before')::bigint, false))
		AND (NOT f ? 'unused_since'
			OR coalesce(k.last_used_at, k.created_at) < (f ->> 'unused_since')::bigint)
		AND (NOT f ? 'metadata' OR k.metadata @> (f -> 'metadata')))
$$;

-- select_keys returns a page of the keys that match, and one more if there is one. Sort
-- is a Sort of package apikey. P_behind is null for the first page; its time is null for
-- the zero time.
CREATE FUNCTION select_keys_v1(f jsonb, sort smallint, descending boolean, behind_time bigint, behind_id text, p_limit bigint)
RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
	never  bigint := CASE sort WHEN 1 THEN 9223372036854775807 ELSE (-9223372036854775808)::bigint END;
	place  text := CASE sort
		WHEN 0 THEN 'k.created_at' -- which has an index
		WHEN 1 THEN format('coalesce(k.expires_at, %L::bigint)', never)
		WHEN 2 THEN format('coalesce(k.last_used_at, %L::bigint)', never)
		END;
	way    text := CASE WHEN descending THEN 'DESC' ELSE 'ASC' END;
	result jsonb;
BEGIN
	EXECUTE format(
		'SELECT coalesce(jsonb_agg(key_json_v1(k) ORDER BY %1$s %2$s, k.id %2$s), ''[]'') FROM (
			SELECT * FROM keys k WHERE %3$s matches_key_v1(k, $1)
				AND ($3 IS NULL OR (%1$s, k.id) %4$s (coalesce($2, %5$L::bigint), $3 COLLATE "C"))
			ORDER BY %1$s %2$s, k.id %2$s LIMIT $4 + 1) k',
		place, way, CASE WHEN f ? 'owner' THEN 'k.owner = $1 ->> ''owner'' AND' ELSE '' END,
		CASE WHEN descending THEN '<' ELSE '>' END, never)
	INTO result USING f, behind_time, behind_id, p_limit;
	RETURN result;
END $$;

CREATE FUNCTION revoke_all_keys_v1(f jsonb, at bigint, p_limit bigint, OUT revoked jsonb, OUT more boolean)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	ids text[];
BEGIN
	PERFORM lock_keys_v1();
	SELECT coalesce(array_agg(id), '{}') INTO ids FROM (
		SELECT id FROM keys k WHERE (NOT f ? 'owner' OR k.owner = f ->> 'owner') AND matches_key_v1(k, f)
			AND (k.revoked_at IS NULL OR readable_key_v1(k) IS NOT TRUE)
		LIMIT p_limit + 1) k;
	more := cardinality(ids) > p_limit;
	SELECT coalesce(jsonb_agg(key_json_v1(k)), '[]') INTO revoked FROM revoke_keys_v1(ids[:p_limit::integer], at) k;
END $$;

CREATE FUNCTION purge_keys_v1(before bigint, p_limit bigint) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	ids    text[];
	hashes bytea[];
BEGIN
	PERFORM lock_keys_v1();
	SELECT coalesce(array_agg(id), '{}') INTO ids FROM (
		SELECT id FROM keys WHERE least(revoked_at, expires_at) < before ORDER BY least(revoked_at, expires_at) LIMIT p_limit) k;
	PERFORM 1 FROM keys WHERE id = ANY (ids) ORDER BY id FOR UPDATE; -- as Touch does
	WITH gone AS (DELETE FROM keys WHERE id = ANY (ids) RETURNING hash)
	SELECT coalesce(array_agg(hash), '{}') INTO hashes FROM gone;
	IF hashes <> '{}' THEN
		PERFORM log_keys_v1(hashes);
	END IF;
	RETURN cardinality(hashes);
END $$;

-- key_changes_after returns the hashes of the changes after a position, in their order, of
-- which there are at most 1000; the last position of the log, and that of the last change
-- that was removed. Server is another one whenever the positions may have begun again.
CREATE FUNCTION key_changes_after_v1(after bigint, OUT server text, OUT last bigint, OUT removed bigint, OUT hashes bytea[])
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
	-- The whole function has one snapshot, because it is STABLE.
	SELECT l.last, l.removed INTO STRICT last, removed FROM key_log l;
	server := extract(epoch FROM pg_postmaster_start_time())::text;
	SELECT coalesce(array_agg(c.hash ORDER BY c.position), '{}') INTO hashes FROM (
		SELECT * FROM key_changes c WHERE c.position > after ORDER BY c.position LIMIT 1000) c;
END $$;

INSERT INTO versions (version, serves) VALUES (7, 1);
