-- API keys: the line of rotations.

-- Programs of earlier versions add keys without a line, so it may be null. That means the
-- same as an empty one: the key is the first of its line.
ALTER TABLE keys ADD COLUMN line text COLLATE "C";

INSERT INTO versions (version, serves) VALUES (12, 1);
