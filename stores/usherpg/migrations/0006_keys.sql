-- API keys, and the log of their changes.
--
-- Programs pass records as jsonb objects whose names are those of the columns. Times are
-- microseconds since 1970, and null for never.

CREATE TABLE keys (
	id               text   COLLATE "C" PRIMARY KEY,
	owner            text   COLLATE "C" NOT NULL,
	hash             bytea  NOT NULL UNIQUE, -- 33 bytes
	name             text   COLLATE "C" NOT NULL,
	description      text   COLLATE "C" NOT NULL,
	metadata         jsonb  NOT NULL, -- an object of texts
	prefix           text   COLLATE "C" NOT NULL,
	last_four        text   COLLATE "C" NOT NULL,
	scopes           text[] COLLATE "C" NOT NULL,
	level            smallint NOT NULL, -- a Level of package usher
	plan             text   COLLATE "C" NOT NULL,
	plan_override    text   COLLATE "C" NOT NULL,
	environment      text   COLLATE "C" NOT NULL,
	allowed_networks text[] NOT NULL,
	created_at       bigint NOT NULL,
	created_by       text   COLLATE "C" NOT NULL,
	updated_at       bigint NOT NULL,
	expires_at       bigint,
	disabled_at      bigint,
	revoked_at       bigint,
	last_used_at     bigint,
	last_used_from   text   NOT NULL, -- an address, which may have a zone; empty for an unknown one
	parent           text   COLLATE "C" NOT NULL,
	replaced_by      text   COLLATE "C" NOT NULL,
	revision         bigint NOT NULL
);

CREATE INDEX keys_owner   ON keys (owner, created_at, id);
CREATE INDEX keys_created ON keys (created_at, id);
CREATE INDEX keys_ended   ON keys (least(revoked_at, expires_at));

-- The one row of this table is locked by each call that changes keys before it reads any,
-- until it commits. So these calls take effect one after the other, whichever keys they
-- are about, and the positions of changes are in the order of their commits: who has
-- seen a position has seen all earlier ones. Touch, which is frequent, does not lock it.
CREATE TABLE key_log (
	single  boolean PRIMARY KEY CHECK (single),
	last    bigint  NOT NULL, -- the position of the last change
	removed bigint  NOT NULL  -- that of the last one that is not in key_changes any more
);

INSERT INTO key_log VALUES (true, 0, 0);

CREATE TABLE key_changes (
	position   bigint PRIMARY KEY,
	hash       bytea  NOT NULL,
	changed_at timestamptz NOT NULL
);

-- readable_key reports whether this version can have written a key.
CREATE FUNCTION readable_key_v1(k keys) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT octet_length(k.hash) = 33 AND k.id <> '' AND k.owner <> '' AND k.revision > 0 AND k.level BETWEEN 0 AND 255
		AND jsonb_typeof(k.metadata) = 'object' AND k.scopes IS NOT NULL AND k.allowed_networks IS NOT NULL
		AND num_nulls(k.created_at, k.updated_at, k.name, k.description, k.prefix, k.last_four, k.plan, k.plan_override, k.environment,
			k.created_by, k.last_used_from, k.parent, k.replaced_by) = 0
$$;

-- check_key fails for a key that cannot be read. SQLSTATE UC001 is read by the program.
CREATE FUNCTION check_key_v1(k keys) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF readable_key_v1(k) IS NOT TRUE THEN
		RAISE EXCEPTION 'what is stored for an API key cannot be read' USING ERRCODE = 'UC001';
	END IF;
END $$;

-- key_json returns a key as programs read it.
CREATE FUNCTION key_json_v1(k keys) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM check_key_v1(k);
	-- The text of a bytea depends on a setting.
	RETURN to_jsonb(k) || jsonb_build_object('hash', '\x' || encode(k.hash, 'hex'));
END $$;

-- lock_keys begins a change.
CREATE FUNCTION lock_keys_v1() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
	PERFORM 1 FROM key_log FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'the log of the changes of API keys is empty' USING ERRCODE = 'UC001';
	END IF;
END $$;

-- log_keys ends a change of the keys with these hashes. It removes old changes, and more
-- than it adds.
CREATE FUNCTION log_keys_v1(hashes bytea[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	n    integer := cardinality(hashes);
	from_position bigint;
	gone bigint;
BEGIN
	UPDATE key_log SET last = last + n RETURNING last - n INTO from_position;
	INSERT INTO key_changes SELECT from_position + i, hash, clock_timestamp()
		FROM unnest(hashes) WITH ORDINALITY AS c (hash, i);
	-- A watch that is so late has ended.
	SELECT max(position) INTO gone FROM (SELECT * FROM key_changes ORDER BY position LIMIT 2 * n + 1) oldest
		WHERE changed_at < clock_timestamp() - interval '1 minute';
	IF gone IS NOT NULL THEN
		DELETE FROM key_changes WHERE position <= gone;
		UPDATE key_log SET removed = gone;
	END IF;
END $$;

-- unended_keys counts the keys of an owner that have not ended at a time, and are
-- replaced or not.
CREATE FUNCTION unended_keys_v1(p_owner text, at bigint, replaced boolean) RETURNS bigint
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
		AND (k.expires_at IS NULL OR k.expires_at > at) AND (k.replaced_by <> '') = replaced;
	RETURN n;
END $$;

-- insert_key adds a key. The functions that change keys return ok, or why they have
-- changed nothing: conflict, limit or none.
CREATE FUNCTION insert_key_v1(p_key jsonb, p_limit bigint) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	k keys := jsonb_populate_record(NULL::keys, p_key);
BEGIN
	PERFORM check_key_v1(k);
	PERFORM lock_keys_v1();
	IF EXISTS (SELECT 1 FROM keys o WHERE o.id = k.id OR o.hash = k.hash) THEN
		RETURN 'conflict';
	ELSIF p_limit > 0 AND unended_keys_v1(k.owner, k.created_at, false) >= p_limit THEN
		RETURN 'limit';
	END IF;
	INSERT INTO keys VALUES (k.*);
	PERFORM log_keys_v1(ARRAY[k.hash]);
	RETURN 'ok';
END $$;

CREATE FUNCTION lookup_key_v1(p_hash bytea) RETURNS jsonb LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
	SELECT key_json_v1(k) FROM keys k WHERE k.hash = p_hash
$$;

CREATE FUNCTION find_key_v1(p_owner text, p_id text) RETURNS jsonb LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
	SELECT key_json_v1(k) FROM keys k WHERE k.id = p_id AND k.owner = p_owner
$$;

CREATE FUNCTION list_keys_v1(p_owner text, p_offset bigint, p_limit bigint, OUT total bigint, OUT page jsonb)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
	SELECT (SELECT count(*) FROM keys WHERE owner = p_owner),
		(SELECT coalesce(jsonb_agg(key_json_v1(k) ORDER BY k.created_at DESC, k.id DESC), '[]')
		FROM (SELECT * FROM keys WHERE owner = p_owner
			ORDER BY created_at DESC, id DESC OFFSET p_offset LIMIT p_limit) k)
$$;

-- set_key replaces the settings of a key if it has the revision of p_key, and ReplacedBy
-- if p_replace. The caller has locked the log.
CREATE FUNCTION set_key_v1(p_key jsonb, p_replace boolean, p_apply boolean) RETURNS text
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
			replaced_by = CASE WHEN p_replace THEN n.replaced_by ELSE replaced_by END, revision = revision + 1
		WHERE id = k.id;
		PERFORM log_keys_v1(ARRAY[k.hash]);
	END IF;
	RETURN 'ok';
END $$;

CREATE FUNCTION update_key_v1(p_key jsonb) RETURNS text LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
	PERFORM lock_keys_v1();
	RETURN set_key_v1(p_key, false, true);
END $$;

CREATE FUNCTION rotate_key_v1(p_old jsonb, p_next jsonb, p_limit bigint) RETURNS text
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
	ELSIF p_limit > 0 AND unended_keys_v1(p_old ->> 'owner', next.created_at, true) >= p_limit THEN
		RETURN 'limit';
	END IF;
	PERFORM set_key_v1(p_old, true, true);
	INSERT INTO keys VALUES (next.*);
	PERFORM log_keys_v1(ARRAY[next.hash]);
	RETURN 'ok';
END $$;

-- revoke_keys revokes those keys of a list that are not revoked, and returns them as they
-- then are. The caller has locked the log.
CREATE FUNCTION revoke_keys_v1(ids text[], at bigint) RETURNS SETOF keys
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	k      keys;
	hashes bytea[] := '{}';
BEGIN
	-- Touch locks several keys too, in the same order.
	FOR k IN SELECT * FROM keys WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE LOOP
		PERFORM check_key_v1(k);
		UPDATE keys SET revoked_at = at, updated_at = at, revision = revision + 1
			WHERE id = k.id AND revoked_at IS NULL RETURNING * INTO k;
		IF FOUND THEN
			hashes := hashes || k.hash;
			RETURN NEXT k;
		END IF;
	END LOOP;
	IF hashes <> '{}' THEN
		PERFORM log_keys_v1(hashes);
	END IF;
END $$;

CREATE FUNCTION revoke_key_v1(p_owner text, p_id text, at bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	k keys;
BEGIN
	PERFORM lock_keys_v1();
	SELECT * INTO k FROM keys WHERE id = p_id AND owner = p_owner;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	IF k.revoked_at IS NULL THEN
		SELECT * INTO k FROM revoke_keys_v1(ARRAY[p_id], at);
	END IF;
	RETURN key_json_v1(k);
END $$;

-- touch_keys records uses.
CREATE FUNCTION touch_keys_v1(ids text[], ats bigint[], froms text[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
	PERFORM 1 FROM keys WHERE id = ANY (ids) AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE;
	UPDATE keys k SET last_used_at = u.at, last_used_from = u.came_from
	FROM unnest(ids, ats, froms) AS u (id, at, came_from)
	WHERE k.id = u.id AND k.revoked_at IS NULL AND (k.last_used_at IS NULL OR u.at > k.last_used_at);
END $$;

INSERT INTO versions (version, serves) VALUES (6, 1);
