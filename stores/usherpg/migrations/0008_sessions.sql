-- Sessions, and revocations of tokens.

CREATE TABLE sessions (
	id           text   COLLATE "C" PRIMARY KEY,
	handle       bytea  NOT NULL UNIQUE, -- 32 bytes, as the next two
	current      bytea  NOT NULL,
	previous     bytea  NOT NULL,
	subject      text   COLLATE "C" NOT NULL,
	scopes       text[] COLLATE "C" NOT NULL,
	data         jsonb  NOT NULL, -- an object of texts
	created_at   bigint NOT NULL, -- microseconds since 1970, as all times
	refreshed_at bigint NOT NULL,
	expires_at   bigint NOT NULL,
	ends_at      bigint NOT NULL,
	revoked_at   bigint,
	delivered    boolean NOT NULL,
	response     bytea  NOT NULL,
	revision     bigint NOT NULL
);

CREATE INDEX sessions_subject ON sessions (subject);
-- When a session may be removed: an hour after it was revoked, or when it expires.
CREATE INDEX sessions_leave ON sessions (least(expires_at, revoked_at + 3600000000));

-- readable_session reports whether this version can have written a session.
CREATE FUNCTION readable_session_v1(s sessions) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT octet_length(s.handle) = 32 AND octet_length(s.current) = 32 AND octet_length(s.previous) = 32
		AND s.id <> '' AND s.subject <> '' AND s.revision > 0 AND jsonb_typeof(s.data) = 'object'
		AND s.scopes IS NOT NULL
		AND num_nulls(s.created_at, s.refreshed_at, s.expires_at, s.ends_at, s.delivered, s.response) = 0
$$;

CREATE FUNCTION check_session_v1(s sessions) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF readable_session_v1(s) IS NOT TRUE THEN
		RAISE EXCEPTION 'what is stored for a session cannot be read' USING ERRCODE = 'UC001';
	END IF;
END $$;

-- session_json returns a session as programs read it.
CREATE FUNCTION session_json_v1(s sessions) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM check_session_v1(s);
	-- The text of a bytea depends on a setting.
	RETURN to_jsonb(s) || jsonb_build_object('handle', '\x' || encode(s.handle, 'hex'), 'current', '\x' || encode(s.current, 'hex'),
		'previous', '\x' || encode(s.previous, 'hex'), 'response', '\x' || encode(s.response, 'hex'));
END $$;

-- lock_subject begins a call that changes several sessions of a subject: it waits for the
-- other such calls. Then it locks the sessions, against calls that change one of them.
CREATE FUNCTION lock_subject_v1(p_subject text) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	s sessions;
BEGIN
	PERFORM pg_advisory_xact_lock(hashtextextended('usherpg:sessions:' || current_schema() || ':' || p_subject, 0));
	FOR s IN SELECT * FROM sessions WHERE subject = p_subject ORDER BY id FOR NO KEY UPDATE LOOP
		PERFORM check_session_v1(s);
	END LOOP;
END $$;

-- insert_session adds a session, and returns those that it has ended, or null if the ID
-- or the handle is taken.
CREATE FUNCTION insert_session_v1(p_session jsonb, p_limit bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	s     sessions := jsonb_populate_record(NULL::sessions, p_session);
	ended jsonb;
BEGIN
	PERFORM check_session_v1(s);
	PERFORM lock_subject_v1(s.subject);
	INSERT INTO sessions VALUES (s.*) ON CONFLICT DO NOTHING;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	-- As many of the others stay as there is room beside the new one.
	WITH surplus AS (
		SELECT o.id FROM sessions o
		WHERE o.subject = s.subject AND o.id <> s.id AND o.revoked_at IS NULL AND o.expires_at > s.created_at
		ORDER BY o.refreshed_at DESC, o.id DESC OFFSET p_limit - 1
	), gone AS (
		UPDATE sessions o SET revoked_at = s.created_at FROM surplus WHERE o.id = surplus.id RETURNING session_json_v1(o) AS s
	)
	SELECT coalesce(jsonb_agg(gone.s), '[]') INTO ended FROM gone;
	-- More than one session is removed for each that is added.
	PERFORM remove_sessions_v1(2);
	RETURN ended;
END $$;

-- remove_sessions removes sessions that are not needed any more. It waits for nobody. Five
-- minutes are for clocks that differ.
CREATE FUNCTION remove_sessions_v1(most integer) RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	old bigint := extract(epoch FROM clock_timestamp()) * 1000000 - 300000000; -- a volatile function would keep from using the index
	n   bigint;
BEGIN
	DELETE FROM sessions s USING (
		SELECT id FROM sessions WHERE least(expires_at, revoked_at + 3600000000) < old
		ORDER BY least(expires_at, revoked_at + 3600000000) LIMIT most FOR UPDATE SKIP LOCKED) gone
	WHERE s.id = gone.id;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END $$;

CREATE FUNCTION lookup_session_v1(p_handle bytea) RETURNS jsonb LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
	SELECT session_json_v1(s) FROM sessions s WHERE s.handle = p_handle
$$;

CREATE FUNCTION list_sessions_v1(p_subject text, now bigint) RETURNS jsonb LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
	SELECT coalesce(jsonb_agg(session_json_v1(s) ORDER BY s.refreshed_at DESC, s.id DESC), '[]') FROM sessions s
	WHERE s.subject = p_subject AND (s.revoked_at IS NULL AND s.expires_at > now OR readable_session_v1(s) IS NOT TRUE)
$$;

-- update_session reports whether it has stored a rotation.
CREATE FUNCTION update_session_v1(p_session jsonb) RETURNS boolean LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	n sessions := jsonb_populate_record(NULL::sessions, p_session);
	s sessions;
BEGIN
	SELECT * INTO s FROM sessions WHERE id = n.id FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM check_session_v1(s);
	IF s.revision <> n.revision OR s.revoked_at IS NOT NULL THEN
		RETURN false;
	END IF;
	UPDATE sessions SET refreshed_at = n.refreshed_at, expires_at = n.expires_at, current = n.current, previous = n.previous,
		delivered = n.delivered, response = n.response, revision = revision + 1 WHERE id = s.id;
	RETURN true;
END $$;

CREATE FUNCTION revoke_session_v1(p_subject text, p_id text, at bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	s sessions;
BEGIN
	SELECT * INTO s FROM sessions WHERE id = p_id AND subject = p_subject FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	PERFORM check_session_v1(s);
	IF s.revoked_at IS NULL THEN
		UPDATE sessions SET revoked_at = at WHERE id = p_id RETURNING * INTO s;
	END IF;
	RETURN session_json_v1(s);
END $$;

CREATE FUNCTION revoke_subject_v1(p_subject text, at bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
	PERFORM lock_subject_v1(p_subject);
	UPDATE sessions SET revoked_at = at WHERE subject = p_subject AND revoked_at IS NULL;
	-- Also those of an earlier call at this time, whose reply may be lost.
	RETURN (SELECT coalesce(jsonb_agg(session_json_v1(s)), '[]') FROM sessions s
		WHERE s.subject = p_subject AND s.revoked_at = at AND s.expires_at > at);
END $$;

INSERT INTO versions (version, serves) VALUES (8, 1);
