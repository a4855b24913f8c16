-- Sessions: the access token of the last response, whose use shows that a client has
-- received the response, and the client that a session is bound to.

-- Programs of earlier versions set neither column, so both may be null, which means the
-- same as an empty text.
ALTER TABLE sessions
	ADD COLUMN token_id text COLLATE "C",
	ADD COLUMN client   text COLLATE "C";

-- This replaces the function of programs of earlier versions too: their rotations must not
-- keep the token of the rotation before.
CREATE OR REPLACE FUNCTION update_session_v1(p_session jsonb) RETURNS boolean LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
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
		token_id = n.token_id, delivered = n.delivered, response = n.response, revision = revision + 1 WHERE id = s.id;
	RETURN true;
END $$;

-- deliver_session records that the access token of the last response was used. It locks
-- nothing unless there is something to change.
CREATE FUNCTION deliver_session_v1(p_id text, p_token text) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
	s sessions;
BEGIN
	SELECT * INTO s FROM sessions WHERE id = p_id;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	PERFORM check_session_v1(s);
	IF s.token_id = p_token AND NOT s.delivered AND s.revoked_at IS NULL THEN
		UPDATE sessions SET delivered = true, revision = revision + 1
		WHERE id = p_id AND token_id = p_token AND NOT delivered AND revoked_at IS NULL;
	END IF;
END $$;

INSERT INTO versions (version, serves) VALUES (13, 1);
