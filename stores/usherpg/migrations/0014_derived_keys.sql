-- API keys: keys that are derived from another, who has disabled a key, and the limits on
-- the keys of an owner.

-- Programs of earlier versions add keys without these, so they may be null, which means the
-- same as an empty text, and as no hash.
ALTER TABLE keys
	ADD COLUMN derived_from      text COLLATE "C",
	ADD COLUMN derived_from_hash bytea, -- 33 bytes
	ADD COLUMN disabled_by       text COLLATE "C";

-- The functions that follow, up to select_keys, replace those of programs of earlier
-- versions too.

CREATE OR REPLACE FUNCTION readable_key_v1(k keys) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT octet_length(k.hash) = 33 AND k.id <> '' AND k.owner <> '' AND k.revision > 0 AND k.level BETWEEN 0 AND 255
		AND jsonb_typeof(k.metadata) = 'object' AND k.scopes IS NOT NULL AND k.allowed_networks IS NOT NULL
		AND num_nulls(k.created_at, k.updated_at, k.name, k.description, k.prefix, k.last_four, k.plan, k.plan_override, k.environment,
			k.created_by, k.last_used_from, k.parent, k.replaced_by) = 0
		AND (k.derived_from_hash IS NULL OR octet_length(k.derived_from_hash) = 33)
$$;

CREATE OR REPLACE FUNCTION key_json_v1(k keys) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM check_key_v1(k);
	-- The text of a bytea depends on a setting.
	RETURN to_jsonb(k) || jsonb_build_object('hash', '\x' || encode(k.hash, 'hex'),
		'derived_from_hash', '\x' || encode(k.derived_from_hash, 'hex'));
END $$;

-- Keys that are derived are counted by room_for_key alone.
CREATE OR REPLACE FUNCTION unended_keys_v1(p_owner text, at bigint, replaced boolean) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
	n   bigint;
	bad keys;
BEGIN
	SELECT * INTO bad FROM keys k WHERE k.owner = p_owner AND readable_key_v1(k) IS NOT TRUE LIMIT 1;
	IF FOUND THEN
		PERFORM check_key_v1(bad);
	END IF;
	SELECT count(*) INTO n FROM keys k WHERE k.owner = p_owner AND k.revoked_at IS NULL
		AND (k.expires_at IS NULL OR k.expires_at > at) AND (k.replaced_by <> '') = replaced
		AND coalesce(k.derived_from, '') = '';
	RETURN n;
END $$;

-- Programs of earlier versions do not say who has disabled a key: for a key that was
-- disabled before that stays as it was.
CREATE OR REPLACE FUNCTION set_key_v1(p_key jsonb, p_replace boolean, p_apply boolean) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	n keys := jsonb_populate_record(NULL::keys, p_key);
	k keys;
BEGIN
	SELECT * INTO k FROM keys WHERE id = n.id AND owner = n.owner FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RETURN 'none';
	END IF;
	PERFORM check_key_v1(k);
	IF k.revision <> n.revision THEN
		RETURN 'conflict';
	END IF;
	IF p_apply THEN
		UPDATE keys SET name = n.name, description = n.description, metadata = n.metadata, scopes = n.scopes,
			level = n.level, plan = n.plan, plan_override = n.plan_override, allowed_networks = n.allowed_networks,
			disabled_at = n.disabled_at, expires_at = n.expires_at, updated_at = n.updated_at,
			disabled_by = CASE
				WHEN p_key ? 'disabled_by' THEN n.disabled_by
				WHEN n.disabled_at IS NOT NULL THEN disabled_by
				END,
			replaced_by = CASE WHEN p_replace THEN n.replaced_by ELSE replaced_by END, revision = revision + 1
		WHERE id = k.id;
		PERFORM log_keys_v1(ARRAY[k.hash]);
	END IF;
	RETURN 'ok';
END $$;

CREATE OR REPLACE FUNCTION matches_key_v1(k keys, f jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT readable_key_v1(k) IS NOT TRUE OR (
		(NOT f ? 'owner' OR k.owner = f ->> 'owner')
		AND (NOT f ? 'created_by' OR k.created_by = f ->> 'created_by')
		AND (NOT f ? 'parent' OR k.parent = f ->> 'parent')
		AND (NOT f ? 'line' OR coalesce(nullif(k.line, ''), k.id) = f ->> 'line')
		AND (NOT f ? 'derived_from' OR coalesce(k.derived_from = f ->> 'derived_from', false))
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

-- indexed_conditions returns those conditions of a filter that have an index, as SQL in
-- which $1 is the filter. The indexes are in the next migration.
CREATE FUNCTION indexed_conditions_v1(f jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN f ? 'owner' THEN 'k.owner = $1 ->> ''owner'' AND ' ELSE '' END
		|| CASE WHEN f ? 'line' THEN '(k.line <> '''' AND k.line = $1 ->> ''line'' OR k.id = $1 ->> ''line'') AND ' ELSE '' END
		|| CASE WHEN f ? 'derived_from' THEN 'k.derived_from <> '''' AND k.derived_from = $1 ->> ''derived_from'' AND ' ELSE '' END
$$;

CREATE OR REPLACE FUNCTION select_keys_v1(f jsonb, sort smallint, descending boolean, behind_time bigint, behind_id text, p_limit bigint)
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
		place, way, indexed_conditions_v1(f), CASE WHEN descending THEN '<' ELSE '>' END, never)
	INTO result USING f, behind_time, behind_id, p_limit;
	RETURN result;
END $$;

CREATE OR REPLACE FUNCTION revoke_all_keys_v1(f jsonb, at bigint, p_limit bigint, OUT revoked jsonb, OUT more boolean)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	ids text[];
BEGIN
	PERFORM lock_keys_v1();
	EXECUTE format(
		'SELECT coalesce(array_agg(id), ''{}'') FROM (
			SELECT id FROM keys k WHERE %s matches_key_v1(k, $1)
				AND (k.revoked_at IS NULL OR readable_key_v1(k) IS NOT TRUE)
			LIMIT $2 + 1) k',
		indexed_conditions_v1(f))
	INTO ids USING f, p_limit;
	more := cardinality(ids) > p_limit;
	SELECT coalesce(jsonb_agg(key_json_v1(k)), '[]') INTO revoked FROM revoke_keys_v1(ids[:p_limit::integer], at) k;
END $$;

-- room_for_key returns ok, or the result of a change that would exceed one of the limits of
-- an owner. Limits has those that are set: active, replaced, working, derived and total. The
-- caller has locked the log. The work grows with the keys that have not ended, and for the
-- total with the limit, of which an index has all that is read.
CREATE FUNCTION room_for_key_v1(p_owner text, at bigint, limits jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
	n      record;
	stored bigint;
BEGIN
	IF limits - 'total' <> '{}' THEN
		SELECT count(*) FILTER (WHERE NOT derived AND NOT replaced) AS active,
			count(*) FILTER (WHERE NOT derived AND replaced) AS replaced,
			count(*) FILTER (WHERE NOT derived) AS working,
			count(*) FILTER (WHERE derived) AS derived,
			count(check_key_v1(k)) AS checked -- or it fails
		INTO n FROM (
			SELECT k, k.replaced_by <> '' AS replaced, coalesce(k.derived_from, '') <> '' AS derived
			FROM keys k WHERE k.owner = p_owner AND k.revoked_at IS NULL
				AND coalesce(k.expires_at, 9223372036854775807) > at) open;
		IF n.active >= (limits ->> 'active')::bigint OR n.replaced >= (limits ->> 'replaced')::bigint
			OR n.working >= (limits ->> 'working')::bigint OR n.derived >= (limits ->> 'derived')::bigint THEN
			RETURN 'limit';
		END IF;
	END IF;
	IF limits ? 'total' THEN
		SELECT count(*) INTO stored FROM (SELECT FROM keys WHERE owner = p_owner LIMIT (limits ->> 'total')::bigint) k;
		IF stored >= (limits ->> 'total')::bigint THEN
			RETURN 'full';
		END IF;
	END IF;
	RETURN 'ok';
END $$;

-- insert_key adds a key. The functions that change keys return ok, or why they have
-- changed nothing: conflict, limit, full or none.
CREATE FUNCTION insert_key_v2(p_key jsonb, p_limits jsonb) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	k      keys := jsonb_populate_record(NULL::keys, p_key);
	result text;
BEGIN
	PERFORM check_key_v1(k);
	PERFORM lock_keys_v1();
	IF EXISTS (SELECT 1 FROM keys o WHERE o.id = k.id OR o.hash = k.hash) THEN
		RETURN 'conflict';
	END IF;
	result := room_for_key_v1(k.owner, k.created_at, p_limits);
	IF result = 'ok' THEN
		INSERT INTO keys VALUES (k.*);
		PERFORM log_keys_v1(ARRAY[k.hash]);
	END IF;
	RETURN result;
END $$;

CREATE FUNCTION rotate_key_v2(p_old jsonb, p_next jsonb, p_limits jsonb) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	next   keys := jsonb_populate_record(NULL::keys, p_next);
	result text;
BEGIN
	PERFORM check_key_v1(next);
	PERFORM lock_keys_v1();
	result := set_key_v1(p_old, true, false);
	IF result <> 'ok' THEN
		RETURN result;
	ELSIF EXISTS (SELECT 1 FROM keys o WHERE o.id = next.id OR o.hash = next.hash) THEN
		RETURN 'conflict';
	END IF;
	result := room_for_key_v1(p_old ->> 'owner', next.created_at, p_limits);
	IF result = 'ok' THEN
		PERFORM set_key_v1(p_old, true, true);
		INSERT INTO keys VALUES (next.*);
		PERFORM log_keys_v1(ARRAY[next.hash]);
	END IF;
	RETURN result;
END $$;

INSERT INTO versions (version, serves) VALUES (14, 1);
