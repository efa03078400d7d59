-- +goose Up
CREATE TABLE events (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, whatever was removed
	namespace  TEXT NOT NULL,
	sandbox_id TEXT NOT NULL,
	at         TEXT NOT NULL, -- RFC 3339 with milliseconds: sorts as time does
	record     TEXT NOT NULL  -- the event as JSON, less its seq
) STRICT;
CREATE INDEX events_of_namespace ON events (namespace, seq);
CREATE INDEX events_of_sandbox ON events (sandbox_id, seq);

-- +goose Down
DROP TABLE events;
